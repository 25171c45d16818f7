//! The tree checks itself: who may import whom, who alone may name what, which files are pure, and which
//! names are no longer used.
//!
//! Layers are what lets a reader change one folder without reading the others. When a rule here
//! stands in the way of a better shape, change the rule in the same commit.

#![allow(
    clippy::unwrap_used,
    reason = "a tree that cannot be read fails the test"
)]

mod circles;
mod names;
mod purity;
mod requirements;
mod sources;

use sources::{has_name, sources, sources_below};
use std::collections::BTreeMap;

/// Folder of `src/`, and the folders that it may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // values
    ("clock", &[]),
    ("report", &["clock"]),
    ("inventory", &[]),
    // bytes
    ("rpmdb", &["report"]),
    ("sbom", &["report", "clock"]),
    ("wire", &["report", "clock"]),
    // ports
    ("http", &["clock"]),
    ("kube", &["clock"]),
    ("listen", &["clock", "transport"]),
    ("nats", &["clock"]),
    ("root", &[]),
    ("scan", &["report", "root", "rpmdb", "clock"]),
    ("store", &["report", "clock"]),
    ("telemetry", &["clock", "transport"]),
    ("transport", &["wire", "clock"]),
    ("watch", &["root"]),
    ("web", &["clock", "listen", "transport"]),
    // commands
    (
        "serve",
        &[
            "report",
            "clock",
            "wire",
            "root",
            "scan",
            "watch",
            "store",
            "transport",
            "http",
            "telemetry",
        ],
    ),
    (
        "sense",
        &[
            "report",
            "sbom",
            "clock",
            "wire",
            "store",
            "transport",
            "http",
            "kube",
            "listen",
            "nats",
            "telemetry",
            "web",
        ],
    ),
    (
        "mirror",
        &[
            "root",
            "inventory",
            "clock",
            "store",
            "http",
            "listen",
            "telemetry",
            "web",
        ],
    ),
    // edges
    (
        "cli",
        &[
            "store",
            "serve",
            "sense",
            "mirror",
            "telemetry",
            "clock",
            "report",
            "sbom",
            "scan",
            "transport",
            "wire",
            "http",
            "kube",
            "listen",
            "inventory",
            "web",
        ],
    ),
];

/// A name, and the files (or folders) that alone may have it.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("bincode::", &["store/codec.rs"]),
    ("spdx::", &["sbom/license.rs"]),
    (
        "redb::",
        &[
            "store/",
            "serve/report_table",
            "serve/mapping_table.rs",
            "sense/queue/table",
            "sense/fleet/",
            "mirror/table/",
        ],
    ),
    ("notify::", &["watch/"]),
    ("tokio_vsock", &["transport/"]),
    ("h2::", &["transport/kubevirt/"]),
    ("hyper::", &["listen/"]),
    // A test of renewed authorities makes some.
    ("rcgen::", &["transport/kubevirt/", "http/tests.rs"]),
    ("ureq::", &["http/"]),
    ("$JS.", &["nats/jetstream.rs"]),
    (
        "data_encoding::",
        &["nats/nkey.rs", "kube/websocket.rs", "kube/kubeconfig.rs"],
    ),
    (
        "percent_encoding::",
        &["percent.rs", "sense/deliver/sink/subject.rs"],
    ),
    ("twox_hash::", &["report/mapping.rs", "sense/fleet/"]),
    ("ring::digest", &["kube/websocket.rs"]),
    ("ring::rand", &["web/secret.rs"]),
    ("serde_yaml_ng::", &["kube/kubeconfig.rs"]),
    ("argh", &["cli/"]),
    ("tracing_subscriber", &["telemetry/"]),
    // It waits for whoever reads the socket; `telemetry/systemd.rs` does not.
    ("sd_notify::notify", &[]),
    // Whatever is written there passes `visible`.
    ("io::stdout", &["cli/mod.rs", "sense/deliver/sink/file.rs"]),
    (
        "io::stderr",
        &[
            "cli/mod.rs",
            "telemetry/mod.rs",
            "sense/deliver/sink/file.rs",
        ],
    ),
    ("Instant::now", &["clock/"]),
    ("SystemTime::now", &["clock/"]),
    ("std::process::exit", &[]),
];

/// Lines of a file without its tests: beyond this it holds a second idea.
const LONGEST_FILE: usize = 450;

/// Lines of any file of Rust, tests and comments included; tests of a large module are in `x/tests.rs`.
const LONGEST_WITH_TESTS: usize = 600;

#[test]
fn no_folder_imports_what_it_may_not() {
    let rules: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(allowed) = rules.get(source.folder()) else {
            assert!(
                source.folder().ends_with(".rs"),
                "{} has no rule",
                source.name
            );
            continue;
        };
        for folder in rules
            .keys()
            .filter(|f| **f != source.folder() && !allowed.contains(f))
        {
            if source
                .code()
                .any(|line| line.contains(&format!("crate::{folder}")))
            {
                wrong.push(format!("{} imports {folder}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_belongs_to_one_place_is_named_only_there() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, places) in ONLY_IN {
            let allowed = places.iter().any(|place| source.name.starts_with(place));
            if !allowed && source.code().any(|line| has_name(line, name)) {
                wrong.push(format!("{} names {name}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|s| !s.text.starts_with("//!"))
        .map(|s| s.name)
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn no_file_holds_more_than_a_reader_can() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|source| (source.code().count(), source.name))
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn no_file_is_too_long_with_its_tests() {
    let long: Vec<_> = ["src", "benches", "tests", "fuzz/src", "fuzz/fuzz_targets"]
        .into_iter()
        .flat_map(sources_below)
        .map(|source| (source.text.lines().count(), source.name))
        .filter(|(lines, _)| *lines > LONGEST_WITH_TESTS)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    let marks = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX"];
    let left: Vec<_> = sources()
        .into_iter()
        .filter(|source| {
            source
                .code()
                .any(|line| marks.iter().any(|mark| line.contains(mark)))
        })
        .map(|source| source.name)
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// A fault that the simulation finds is of worth only while it can be put back.
#[test]
fn every_fault_of_the_simulation_can_be_put_back() {
    let root = env!("CARGO_MANIFEST_DIR");
    let patches = std::fs::read_dir(format!("{root}/tests/sim/faults")).unwrap();
    for patch in patches {
        let patch = patch.unwrap().path();
        let mut git = std::process::Command::new("git");
        let checked = git
            .current_dir(root)
            .args(["apply", "-C1", "--check"])
            .arg(&patch)
            .output();
        let checked = match checked {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: there is no git here");
                return;
            }
            checked => checked.unwrap(),
        };
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(
            checked.status.success(),
            "{} does not apply: put its fault back by hand and write the patch anew:\n{said}",
            patch.display()
        );
    }
}
