//! The files that the package ships say what the program does. Loss prevented: a manual page, a
//! completion or a default configuration that misses an option or names one there is not.
//!
//! `AFFERENT_REGENERATE=1 cargo test --test packaging` writes what is generated anew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod alerts;
mod completions;
mod configuration;
mod help;
mod kubernetes;
mod manual;
mod settings;

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Holds that a generated file is as it would be generated now, or makes it so.
fn hold(path: &str, wanted: &str) {
    let file: PathBuf = root().join(path);
    if std::env::var_os("AFFERENT_REGENERATE").is_some() {
        std::fs::write(&file, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == wanted,
        "{path} is not what the options say; AFFERENT_REGENERATE=1 cargo test --test packaging"
    );
}

#[test]
fn the_spec_packages_the_version_of_the_crate() {
    let version = read("packaging/rpm/afferent.spec")
        .lines()
        .find_map(|line| line.strip_prefix("Version:").map(|v| v.trim().to_owned()));
    assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_first_entry_of_the_changelog_is_about_this_version() {
    let spec = read("packaging/rpm/afferent.spec");
    let (_, log) = spec.split_once("%changelog\n").unwrap();
    let first = log.lines().next().unwrap();
    let version = concat!(" - ", env!("CARGO_PKG_VERSION"), "-1");
    assert!(
        first.starts_with("* ") && first.ends_with(version),
        "{first}"
    );
}
