//! How long a scan takes, beside whatever else can list the same database on this machine.
//!
//! `cargo bench --bench rpmdb` prints a table: whole processes, warm cache, medians. Databases of
//! 600 and 6,400 packages are made once by `rpmdb --importdb` and kept in the target directory.
//! Peers are used where they are found: `rpm -qa`, `syft`, and the crate `rpmdb` through
//! `benches/peers` (its own workspace; `cargo build --release --manifest-path
//! benches/peers/Cargo.toml`).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that fails stops; its table is its output"
)]

#[path = "../tests/it/support/headers.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use the rest"
)]
mod headers;

use headers::Fields;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    for packages in [600, 6_400] {
        let root = generated(packages);
        println!("{}", root.display());
    }
}

/// A root with a generated database: headers of the sizes that a server has, 29 KB on average.
fn generated(packages: u32) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("generated-{packages}"));
    let database = root.join("var/lib/rpm");
    if database.join("rpmdb.sqlite").exists() {
        return root;
    }
    let making = root.with_extension("making");
    let _ = std::fs::remove_dir_all(&making);
    std::fs::create_dir_all(making.join("var/lib/rpm")).unwrap();
    let mut import = Command::new("rpmdb")
        .arg("--importdb")
        .arg("--dbpath")
        .arg(making.join("var/lib/rpm"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = import.stdin.take().unwrap();
    for i in 0..packages {
        let mut fields = Fields::named(&format!("generated-package-{i:05}"));
        fields.version = format!("{}.{}", i % 7, i % 31).into();
        fields.release = b"6.el9".into();
        fields.arch = Some(b"x86_64".into());
        // Most packages have few files, some have thousands.
        fields.files = 20 + i % 97 + if i % 10 == 0 { 1_400 } else { 0 };
        fields.modularity_label = (i % 25 == 0).then(|| b"nodejs:18:9040020240301:rhel9".into());
        input.write_all(&fields.export()).unwrap();
    }
    drop(input);
    assert!(import.wait().unwrap().success());
    std::fs::rename(&making, &root).unwrap();
    root
}
