//! Names: those that were replaced by a term of the field, and public types that share one.

use crate::sources::{Source, has_name, sources};
use std::collections::BTreeMap;

/// `scope old new`, one a line: below this path no type, function, field or module is called `old`. The
/// scope `file` is for files that are called otherwise now, where the word is right elsewhere.
const RENAMED: &str = include_str!("renamed.txt");

/// Public types of a protocol have the names of the protocol.
const PROTOCOL: &[&str] = &["wire/message.rs"];

/// Declarations that begin with one of these words are followed by the name.
const DECLARES: &[&str] = &[
    "fn", "struct", "enum", "trait", "type", "mod", "const", "static",
];

/// The name that a line of code declares: an item, a field, or a variant of an enum.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')').map_or(rest, |(_, rest)| rest),
        Some(rest) if rest.starts_with(' ') => rest,
        _ => line,
    }
    .trim_start();
    let line = line.strip_prefix("async ").unwrap_or(line);
    let end = line.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    let (word, rest) = line.split_at(end);
    if DECLARES.contains(&word) {
        let name = rest.trim_start();
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
        return Some(&name[..end.unwrap_or(name.len())]);
    }
    let is_field = rest.starts_with(": ") && rest.ends_with(',');
    let is_variant = word.starts_with(char::is_uppercase)
        && (rest == "," || rest.starts_with('(') && rest.ends_with("),") || rest == " {");
    (is_field || is_variant).then_some(word)
}

fn renamed() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let lines = RENAMED.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [scope, old, new] = words[..] else {
            unreachable!("{line}")
        };
        (scope, old, new)
    })
}

fn old_names(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        for (scope, old, new) in renamed() {
            let path = source.name.trim_end_matches(".rs").trim_end_matches("/mod");
            let is_in = scope == "crate" || source.name.starts_with(scope);
            let is_module = path.rsplit('/').next() == Some(old);
            let is_file = scope == "file" && source.name == old;
            let is_declared = || source.code().any(|line| declared(line) == Some(old));
            if is_file || is_in && (is_module || is_declared()) {
                wrong.push(format!("{}: {old} is called {new}", source.name));
            }
        }
    }
    wrong
}

/// Public types, and the files that declare them.
fn public_types(sources: &[Source]) -> BTreeMap<String, Vec<&str>> {
    let mut types: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources {
        if PROTOCOL.contains(&source.name.as_str()) {
            continue;
        }
        for line in source.code() {
            let is_type = ["pub struct", "pub enum", "pub trait", "pub type"]
                .iter()
                .any(|word| line.starts_with(word) && has_name(line, word));
            if let Some(name) = declared(line).filter(|_| is_type) {
                types.entry(name.to_owned()).or_default().push(&source.name);
            }
        }
    }
    types
}

#[test]
fn nothing_is_called_by_a_name_that_was_replaced() {
    let wrong = old_names(&sources());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_two_public_types_share_a_name() {
    let sources = sources();
    let shared: Vec<_> = public_types(&sources)
        .into_iter()
        .filter(|(_, files)| files.len() > 1)
        .collect();
    assert!(shared.is_empty(), "{shared:#?}");
}

#[test]
fn a_replaced_name_is_found_wherever_it_is_declared() {
    for (line, is_wrong) in [
        ("pub struct Desk {", true),
        ("    pub(super) fn put_back(&mut self) {", true),
        ("    is_news: bool,", true),
        ("    Doubtful,", true),
        ("mod desk;", true),
        ("    let put_back = 1;", false),
        ("    // put_back", false),
        ("    pub fn put_backs() {", false),
    ] {
        let source = Source::made_up("sense/x.rs", line);
        assert_eq!(!old_names(&[source]).is_empty(), is_wrong, "{line}");
    }
    // In another scope the word is free.
    let elsewhere = Source::made_up("rpmdb/x.rs", "struct Desk {");
    assert!(old_names(&[elsewhere]).is_empty());
    for file in ["sense/desk.rs", "sense/desk/mod.rs", "mirror/page.rs"] {
        let source = Source::made_up(file, "");
        assert_eq!(old_names(&[source]).len(), 1, "{file}");
    }
}

#[test]
fn two_public_types_of_one_name_are_found() {
    let sources = [
        Source::made_up("a.rs", "pub struct Same {"),
        Source::made_up("b.rs", "pub enum Same {"),
        Source::made_up("c.rs", "struct Same {"),
    ];
    assert_eq!(public_types(&sources)["Same"], ["a.rs", "b.rs"]);
}
