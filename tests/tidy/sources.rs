//! The files that are checked, without their tests and comments.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether `line` has `name` as a name of its own, not as the end of another.
pub(crate) fn has_name(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

/// A file of the program.
pub(crate) struct Source {
    /// Path below `src/`.
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    /// A file that a test makes up.
    pub(crate) fn made_up(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn folder(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Lines before the tests, without comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        let code = self
            .text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        code.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
    }
}

/// The files of the program.
pub(crate) fn sources() -> Vec<Source> {
    let sources = sources_below("src");
    assert!(sources.len() > 30);
    sources
}

/// The files of Rust in a folder of this repository, named by their path below it.
pub(crate) fn sources_below(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { name, text });
            }
        }
    }
    sources
}
