//! Every place that lists settings lists the same ones. Loss prevented: a setting that can be used and not
//! found, or found and not used.

use crate::help::{Page, pages};
use crate::{read, root};
use afferent::cli::settings;
use std::collections::BTreeSet;
use std::process::Command;

/// A command that reads settings, the page of help that has all of them, and its flags that are no settings.
const COMMANDS: [(&str, &str, &[&str]); 3] = [
    ("serve", "serve", &["config"]),
    ("sense", "sense", &["config"]),
    (
        "mirror",
        "mirror run",
        &[
            "once",
            "plan",
            "plan-out",
            "apply",
            "approve-deletes",
            "config",
            "json",
        ],
    ),
];

#[test]
fn help_man_pages_completions_and_check_config_list_the_same_settings() {
    let pages = pages();
    let completions = ["afferent.bash", "_afferent", "afferent.fish"]
        .map(|file| read(&format!("packaging/completions/{file}")));
    for (command, words, others) in COMMANDS {
        let declared: BTreeSet<String> = settings(command).iter().map(|s| s.flag()).collect();
        assert!(declared.len() > 15, "{command} has its settings");
        let page = pages.iter().find(|page| page.words.join(" ") == words);
        let lists = [
            ("--help", of_help(page.unwrap())),
            ("the man page", of_man_page(command, words)),
            ("bash", of_bash(&completions[0], words)),
            ("zsh", of_zsh(&completions[1], words)),
            ("fish", of_fish(&completions[2], words)),
        ];
        for (place, mut flags) in lists {
            for other in others {
                assert!(flags.remove(*other), "{place} of {words} has no --{other}");
            }
            flags.remove("help");
            assert_eq!(flags, declared, "{place} of {words}");
        }
        let lists = [
            ("check-config", of_check_config(command)),
            ("afferent.toml(5)", of_toml_page(command)),
        ];
        for (place, keys) in lists {
            let flags: BTreeSet<String> = keys.iter().map(|key| key.replace('_', "-")).collect();
            assert_eq!(flags, declared, "{place} of {command}");
        }
    }
}

#[test]
fn help_calls_a_value_and_tells_a_range_and_a_default_as_they_are_declared() {
    let pages = pages();
    for (command, words, _) in COMMANDS {
        let page = pages.iter().find(|page| page.words.join(" ") == words);
        for setting in settings(command) {
            let name = format!("--{}", setting.flag());
            let flag = page.unwrap().flags.iter().find(|flag| flag.name == name);
            let flag = flag.unwrap_or_else(|| panic!("afferent {words} {name}"));
            // What is off unless it is asked for may be asked for by its name alone.
            let may_be_switch = setting.value == "on|off" && setting.default == Some("off");
            if may_be_switch && flag.value.is_none() {
                continue;
            }
            assert_eq!(flag.value.as_deref(), Some(setting.value), "{words} {name}");
            let default = setting.default.map(|value| format!("(default {value})"));
            let otherwise = setting.otherwise.map(|words| format!("(default: {words})"));
            let range = setting.range.map(|(from, to)| format!(", {from} to {to}"));
            let many = match setting.per_sink {
                true => ", once for each sink",
                false => ", may be repeated",
            };
            let many = setting.many.then(|| many.to_owned());
            for words in [default, otherwise, range, many].into_iter().flatten() {
                assert!(
                    flag.help.contains(&words),
                    "{name}: {}, not {words}",
                    flag.help
                );
            }
        }
    }
}

fn of_help(page: &Page) -> BTreeSet<String> {
    let names = page.flags.iter().map(|flag| flag.name.as_str());
    names
        .map(|name| name.trim_start_matches('-').to_owned())
        .collect()
}

/// Flags under the heading of `words`, or of the whole page where the command has no commands of its own.
fn of_man_page(command: &str, words: &str) -> BTreeSet<String> {
    let page = read(&format!("packaging/man/afferent-{command}.1")).replace("\\-", "-");
    let (_, options) = page.split_once(".\\\" options\n").unwrap();
    let options = options.split(".\\\" end\n").next().unwrap();
    let part = match words.split_once(' ') {
        Some((_, word)) => options.split_once(&format!(".SS {word}\n")).unwrap().1,
        None => options,
    };
    let part = part.split(".SS ").next().unwrap();
    let names = part.lines().filter_map(|line| {
        let line = line.strip_prefix(".BI ").or(line.strip_prefix(".B "))?;
        line.split_whitespace().next()?.strip_prefix("--")
    });
    names.map(str::to_owned).collect()
}

fn of_toml_page(command: &str) -> BTreeSet<String> {
    let page = read("packaging/man/afferent.toml.5").replace("\\-", "-");
    let (_, part) = page.split_once(&format!(".\\\" {command}\n")).unwrap();
    let part = part.split(".\\\" end\n").next().unwrap();
    let keys = part.lines().filter_map(|line| line.strip_prefix(".B "));
    keys.map(|line| line.split(" = ").next().unwrap().to_owned())
        .collect()
}

fn of_bash(text: &str, words: &str) -> BTreeSet<String> {
    let start = format!("    \" {words}\") offers=\"");
    let offers = text.lines().find_map(|line| line.strip_prefix(&start));
    let offers = offers.unwrap_or_else(|| panic!("nothing completes {words} in bash"));
    let flags = offers.trim_end_matches("\" ;;").split(' ');
    flags
        .filter_map(|word| word.strip_prefix("--"))
        .map(str::to_owned)
        .collect()
}

fn of_zsh(text: &str, words: &str) -> BTreeSet<String> {
    let start = format!("_afferent_at_{}() {{\n", words.replace(' ', "_"));
    let (_, body) = text.split_once(&start).unwrap();
    let body = body.split("\n}\n").next().unwrap();
    let flags = body.lines().filter_map(|line| {
        let line = line
            .trim()
            .trim_start_matches(['\'', '*'])
            .strip_prefix("--")?;
        line.split('[').next()
    });
    flags.map(str::to_owned).collect()
}

fn of_fish(text: &str, words: &str) -> BTreeSet<String> {
    let seen = words
        .split(' ')
        .map(|word| format!("__fish_seen_subcommand_from {word}"));
    let start = format!(
        "complete -c afferent -n '{}' -l ",
        seen.collect::<Vec<_>>().join("; and ")
    );
    let flags = text.lines().filter_map(|line| line.strip_prefix(&start));
    flags
        .map(|flag| flag.split(' ').next().unwrap().to_owned())
        .collect()
}

/// Keys that the running program shows for the shipped file.
fn of_check_config(command: &str) -> BTreeSet<String> {
    let file = root().join(format!("packaging/config/{command}.toml"));
    let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["check-config", command, "--show"])
        .arg(file)
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    let shown = String::from_utf8(out.stdout).unwrap();
    let keys = shown
        .lines()
        .map(|line| line.split_whitespace().next().unwrap());
    keys.map(str::to_owned).collect()
}
