//! Import circles between files: two files that import each other are one file in two pieces.
//!
//! A folder's `mod.rs` and the files below it count as one place: it gives them their shared types, and
//! names them.

use crate::sources::{Source, sources};
use std::collections::{BTreeMap, BTreeSet};

type Module = Vec<String>;

/// The module of a file.
fn module(name: &str) -> Module {
    let path = name.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

/// The paths of a `use`, with its groups taken apart.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.trim().to_owned()];
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(|part| expand(&format!("{}{}", prefix.trim(), part.trim())))
        .collect()
}

/// The modules that a file imports.
fn imports(source: &Source, all: &BTreeSet<Module>) -> BTreeSet<Module> {
    let own = module(&source.name);
    let code: String = source.code().flat_map(|line| [line, "\n"]).collect();
    let mut found = BTreeSet::new();
    for statement in code.split(';') {
        let Some(at) = statement.rfind("use ") else {
            continue;
        };
        for path in expand(&statement[at + 4..].replace('\n', " ")) {
            let mut parts: Vec<String> = path.split("::").map(|p| p.trim().to_owned()).collect();
            let mut base = match parts.first().map(String::as_str) {
                Some("crate") => Module::new(),
                Some("self" | "super") => own.clone(),
                _ => continue,
            };
            while parts
                .first()
                .is_some_and(|p| p == "crate" || p == "self" || p == "super")
            {
                if parts.remove(0) == "super" {
                    base.pop();
                }
            }
            base.extend(parts);
            while !base.is_empty() && !all.contains(&base) {
                base.pop();
            }
            let is_one_place = base.starts_with(&own) || own.starts_with(&base);
            if !base.is_empty() && !is_one_place {
                found.insert(base);
            }
        }
    }
    found
}

/// Files that reach themselves through imports, each with one that it imports on the way.
fn circles(sources: &[Source]) -> Vec<String> {
    let is_test = |name: &str| {
        let last = name.rsplit('/').next().unwrap_or_default();
        ["tests.rs", "properties.rs", "fixture.rs"].contains(&last)
    };
    let files: Vec<&Source> = sources.iter().filter(|s| !is_test(&s.name)).collect();
    let all: BTreeSet<Module> = files.iter().map(|source| module(&source.name)).collect();
    let graph: BTreeMap<Module, BTreeSet<Module>> = files
        .iter()
        .map(|source| (module(&source.name), imports(source, &all)))
        .collect();
    let reaches = |from: &Module, to: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                open.extend(graph.get(next).into_iter().flatten());
            }
        }
        false
    };
    let mut found = Vec::new();
    for (file, imported) in &graph {
        for other in imported.iter().filter(|other| reaches(other, file)) {
            found.push(format!("{} -> {}", file.join("/"), other.join("/")));
        }
    }
    found
}

#[test]
fn no_two_files_import_each_other() {
    let found = circles(&sources());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_circle_through_a_grouped_import_is_found() {
    let a = Source::made_up("x/a.rs", "use crate::{clock, y::{b::{B, C}, other}};");
    let b = Source::made_up("y/b.rs", "use crate::x::a::A;");
    let c = Source::made_up("y/c.rs", "use super::b::B;");
    assert_eq!(circles(&[a, b, c]), ["x/a -> y/b", "y/b -> x/a"]);
}

#[test]
fn a_folder_and_its_files_are_one_place() {
    let parent = Source::made_up("x/mod.rs", "mod a;\nuse self::a::A;");
    let child = Source::made_up("x/a.rs", "use super::Shared;");
    assert!(circles(&[parent, child]).is_empty());
}
