//! Manual pages: what is for reading is written by hand, what is for looking up comes from the help.
//!
//! A page has two places, `.\" synopsis` to `.\" end` and `.\" options` to `.\" end`.

use crate::help::{Page, pages};
use crate::{hold, read};
use afferent::cli::{options::Setting, settings};
use std::fmt::Write;

#[test]
fn manual_pages_list_exactly_the_commands_and_flags_there_are() {
    let pages = pages();
    for command in [""].into_iter().chain(names(&pages[0])) {
        let path = match command {
            "" => "packaging/man/afferent.1".to_owned(),
            command => format!("packaging/man/afferent-{command}.1"),
        };
        let about: Vec<&Page> = pages
            .iter()
            .filter(|page| page.words.first().map_or("", String::as_str) == command)
            .collect();
        let text = replace(&read(&path), "synopsis", &synopsis(&about));
        hold(&path, &replace(&text, "options", &options(&about)));
    }
}

#[test]
fn the_manual_page_of_the_configuration_explains_every_key() {
    let path = "packaging/man/afferent.toml.5";
    let mut text = read(path);
    for mode in ["serve", "sense", "mirror"] {
        text = replace(&text, mode, &keys(settings(mode)));
    }
    hold(path, &text);
}

fn names(page: &Page) -> impl Iterator<Item = &str> {
    page.commands.iter().map(|(name, _)| name.as_str())
}

fn keys(settings: &[Setting]) -> String {
    let mut text = String::new();
    for setting in settings {
        let many = if setting.many { ", or a list" } else { "" };
        let default = match (setting.default, setting.otherwise) {
            (Some(default), _) => format!("default {default}"),
            (None, Some(otherwise)) => format!("default: {otherwise}"),
            (None, None) => "no default".to_owned(),
        };
        let range = setting.range;
        let range = range.map_or(String::new(), |(from, to)| format!(", {from} to {to}"));
        let (key, value) = (roff(setting.key), roff(setting.value));
        let help = format!(
            "{}{range} ({default}{many}).",
            sentence(setting.help.trim())
        );
        writeln!(text, ".TP\n.B {key} = {value}\n{}", roff(&help)).unwrap();
    }
    text
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn synopsis(pages: &[&Page]) -> String {
    let lines: Vec<String> = pages.iter().map(|page| usage(page)).collect();
    lines.join(".br\n")
}

fn usage(page: &Page) -> String {
    let mut words = vec!["afferent"];
    words.extend(page.words.iter().map(String::as_str));
    let words = words.join(" ");
    let rest = page.usage.strip_prefix(&words).unwrap_or(&page.usage);
    let rest = rest.trim();
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!("{}\n", roff(rest))
    };
    format!(".B {}\n{rest}", roff(&words))
}

fn options(pages: &[&Page]) -> String {
    let mut text = String::new();
    for page in pages {
        if page.words.len() > 1 {
            writeln!(
                text,
                ".SS {}\n{}",
                roff(&page.words[1..].join(" ")),
                roff(&page.about)
            )
            .unwrap();
        }
        for (command, about) in &page.commands {
            if page.words.is_empty() {
                writeln!(
                    text,
                    ".TP\n.BR afferent\\-{} (1)\n{}",
                    roff(command),
                    roff(about)
                )
                .unwrap();
            }
        }
        for flag in &page.flags {
            match &flag.value {
                Some(value) => writeln!(text, ".TP\n.BI {} \" {}\"", roff(&flag.name), roff(value)),
                None => writeln!(text, ".TP\n.B {}", roff(&flag.name)),
            }
            .unwrap();
            writeln!(text, "{}", roff(&flag.help)).unwrap();
        }
    }
    text
}

/// The text with what stands between the marks of `place` replaced.
fn replace(text: &str, place: &str, with: &str) -> String {
    let mark = format!(".\\\" {place}\n");
    let (head, rest) = text
        .split_once(&mark)
        .unwrap_or_else(|| panic!("a manual page has no place for its {place}"));
    let (_, tail) = rest.split_once(".\\\" end\n").unwrap();
    format!("{head}{mark}{with}.\\\" end\n{tail}")
}

fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
