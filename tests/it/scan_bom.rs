//! Bills of materials of real databases, as the program writes them.

use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::fixtures;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const CENTOS: &str = "NAME=\"CentOS Linux\"\nID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"8\"\n\
                      PRETTY_NAME=\"CentOS Linux 8\"\nCPE_NAME=\"cpe:/o:centos:centos:8\"\n";

/// The largest fixture: 517 packages, with epochs and modules.
fn centos() -> TempDir {
    let root = fixtures::unpack("centos-8-modular-bdb");
    let etc = root.path().join("etc");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("os-release"), CENTOS).unwrap();
    fs::write(etc.join("hostname"), "build-7\n").unwrap();
    root
}

fn scan(root: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["scan", "--root"])
        .arg(root)
        .args(more)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap()
}

fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_document_of_517_packages_is_small_complete_and_the_same_every_time() {
    let root = centos();
    for (format, list) in [("cyclonedx", "components"), ("spdx", "packages")] {
        let output = scan(root.path(), &["--format", format]);
        let bom = document(&output);
        assert_eq!(said(&output), "");
        // The system is one of them.
        assert_eq!(bom[list].as_array().unwrap().len(), 1 + 517);
        let length = output.stdout.len();
        assert!(length < 700_000, "{format}: {length} bytes");
        let again = scan(root.path(), &["--format", format]);
        assert_eq!(again.stdout, output.stdout);
    }
    let bom = document(&scan(root.path(), &["--format", "cyclonedx"]));
    assert_eq!(bom["metadata"]["component"]["name"], "build-7");
    assert_eq!(bom["metadata"]["timestamp"], "2023-11-14T22:13:20.000Z");
    let of = |name: &str| {
        let components = bom["components"].as_array().unwrap();
        let component = components.iter().find(|c| c["name"] == name).unwrap();
        let properties = component["properties"].as_array().unwrap();
        let property = |name: &str| {
            let property = properties.iter().find(|p| p["name"] == name);
            property.map(|property| property["value"].as_str().unwrap().to_owned())
        };
        let label = property("syft:metadata:modularityLabel").unwrap();
        (component.clone(), label, property("afferent:installTime"))
    };
    let (bash, label, installed) = of("bash");
    assert_eq!(bash["publisher"], "CentOS");
    assert_eq!(bash["description"], "The GNU Bourne Again shell");
    assert_eq!(
        bash["externalReferences"][0]["url"],
        "https://www.gnu.org/software/bash"
    );
    assert_eq!(label, "");
    assert!(installed.unwrap().ends_with('Z'));
    let (perl, label, _) = of("perl-libs");
    let purl = perl["purl"].as_str().unwrap();
    assert!(
        purl.contains("?arch=x86_64&distro=centos-8&epoch=4&"),
        "{purl}"
    );
    assert_eq!(label, "");
}

#[test]
fn the_machine_is_called_as_its_own_root_says_or_by_its_id() {
    let root = centos();
    let name = || {
        let bom = document(&scan(root.path(), &["--format", "cyclonedx"]));
        bom["metadata"]["component"]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let etc = root.path().join("etc");
    fs::write(etc.join("machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    assert_eq!(name(), "build-7");
    fs::remove_file(etc.join("hostname")).unwrap();
    let id = name();
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && !id.starts_with("0123"),
        "{id}"
    );
    fs::remove_file(etc.join("machine-id")).unwrap();
    assert_eq!(name(), "unknown-host");
}

// The loss: a scanner that finds nothing and does not say so is taken for good news.
#[test]
fn a_distribution_that_scanners_do_not_know_is_remarked_once_and_the_document_is_whole() {
    let root = centos();
    for (os_release, word) in [
        ("ID=mageia\nVERSION_ID=9\n", "\"mageia\""),
        ("ID=fedora\nVERSION_ID=42\n", "Trivy"),
    ] {
        fs::write(root.path().join("etc/os-release"), os_release).unwrap();
        for format in ["cyclonedx", "spdx"] {
            let output = scan(root.path(), &["--format", format]);
            document(&output);
            let said = said(&output);
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains(word), "{said}");
        }
        assert_eq!(said(&scan(root.path(), &["--format", "json"])), "");
    }
}

#[test]
fn output_replaces_a_file_in_any_format_and_leaves_it_when_it_cannot() {
    let root = centos();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bom.json");
    let path = file.to_str().unwrap();
    for format in ["cyclonedx", "spdx", "json", "tsv", "table"] {
        let output = scan(root.path(), &["--format", format, "--output", path]);
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
        let shown = scan(root.path(), &["--format", format]);
        assert_eq!(fs::read(&file).unwrap(), shown.stdout, "{format}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let before = fs::read(&file).unwrap();
    let broken = tempfile::tempdir().unwrap();
    let output = scan(broken.path(), &["--format", "spdx", "--output", path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_time_of_the_environment_that_is_none_is_refused_by_name() {
    let root = centos();
    let run = |format: &str| {
        Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["scan", "--format", format, "--root"])
            .arg(root.path())
            .env("SOURCE_DATE_EPOCH", "yesterday")
            .output()
            .unwrap()
    };
    let output = run("spdx");
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("SOURCE_DATE_EPOCH"), "{output:?}");
    assert!(run("json").status.success(), "nothing else reads it");
}

#[test]
fn a_pulled_report_is_a_document_of_that_guest() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let pull = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_afferent"))
            .arg("pull")
            .arg(format!("unix:{}", agent.path.display()))
            .args(more)
            .output()
            .unwrap()
    };
    let bom = document(&pull(&["--format", "cyclonedx"]));
    let id = "0123456789abcdef0123456789abcdef";
    assert_eq!(bom["metadata"]["component"]["name"], id);
    assert_eq!(bom["components"][1]["name"], "bash-5.1-1");
    let spdx = document(&pull(&["--format", "spdx"]));
    assert_eq!(
        (&spdx["name"], &spdx["packages"][1]["name"]),
        (&id.into(), &"bash-5.1-1".into())
    );
    let unchanged = pull(&["--format", "spdx", "--known", "77:1"]);
    assert_eq!(unchanged.status.code(), Some(1));
    assert!(said(&unchanged).contains("--known"), "{unchanged:?}");
}
