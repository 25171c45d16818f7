//! What `--help` says, taken apart: the one list that completions, manual pages and checks follow.

use std::process::Command;

/// One flag of a command.
pub(crate) struct Flag {
    /// With its dashes.
    pub(crate) name: String,
    /// What a value is called in the usage line; `None`: no value follows.
    pub(crate) value: Option<String>,
    /// One sentence.
    pub(crate) help: String,
}

impl Flag {
    /// The words among which its value is chosen, where they are told: `on|off`, not `FILE|URL`.
    pub(crate) fn words(&self) -> Vec<&str> {
        let words: Vec<&str> = self
            .value
            .iter()
            .flat_map(|value| value.split('|'))
            .collect();
        let chosen = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        match words.len() > 1 && words.iter().all(chosen) {
            true => words,
            false => Vec::new(),
        }
    }
}

/// The help of one command, or of the program itself.
pub(crate) struct Page {
    /// Words after `afferent`: none, one (`serve`) or two (`mirror plan`).
    pub(crate) words: Vec<String>,
    /// The usage line without `Usage: `.
    pub(crate) usage: String,
    /// What it is for.
    pub(crate) about: String,
    /// In the order of the help, without `--help`.
    pub(crate) flags: Vec<Flag>,
    /// Its commands and what each is for.
    pub(crate) commands: Vec<(String, String)>,
}

/// Every page of help, the program's own first, each before its commands' pages.
pub(crate) fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    visit(&[], &mut pages);
    pages
}

fn visit(words: &[String], pages: &mut Vec<Page>) {
    let page = read(words);
    let commands: Vec<String> = page.commands.iter().map(|(name, _)| name.clone()).collect();
    pages.push(page);
    for command in commands {
        visit(&[words, &[command]].concat(), pages);
    }
}

fn read(words: &[String]) -> Page {
    let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(words)
        .arg("--help")
        .output()
        .unwrap();
    assert!(out.status.success(), "afferent {words:?} --help failed");
    let text = String::from_utf8(out.stdout).unwrap();
    let usage = section(&text, "Usage: ").trim().to_owned();
    // What it is for stands between the usage and the first heading.
    let about = text.split("\n\n").nth(1).unwrap_or_default();
    let (options, commands) = (
        section(&text, "\nOptions:\n"),
        section(&text, "\nCommands:\n"),
    );
    let flags = entries(options)
        .into_iter()
        .filter(|(name, _)| name.starts_with("--") && name != "--help, help")
        .map(|(name, help)| Flag {
            value: value(&usage, &name),
            name,
            help,
        })
        .collect();
    Page {
        words: words.to_vec(),
        flags,
        usage,
        about: about.split_whitespace().collect::<Vec<_>>().join(" "),
        commands: entries(commands),
    }
}

/// What stands under a heading, up to the next empty line.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(heading).unwrap_or_default();
    rest.split("\n\n").next().unwrap_or_default()
}

/// Lines `  name   help`, the help going on in lines that are indented further.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(more) = line.strip_prefix("        ") {
            let (_, help) = entries.last_mut().unwrap();
            if !help.is_empty() {
                help.push(' ');
            }
            help.push_str(more.trim());
            continue;
        }
        let line = line.trim();
        let (name, help) = match line.strip_prefix("--help, help") {
            Some(help) => ("--help, help", help),
            None => line.split_once(' ').unwrap_or((line, "")),
        };
        entries.push((name.to_owned(), help.trim().to_owned()));
    }
    entries
}

/// `[--listen <listen...>]` has the value `listen`, `[--version]` has none.
fn value(usage: &str, flag: &str) -> Option<String> {
    let (_, rest) = usage.split_once(&format!("{flag} <"))?;
    let (name, _) = rest.split_once('>')?;
    Some(name.trim_end_matches("...").to_owned())
}
