//! What stands in the way of a scan below a root: links, and things that are no files.

use crate::support::agent::is_root;
use crate::support::eventually;
use crate::support::fixtures;
use crate::support::rpm_root::{RpmRoot, Spec, sorted};
use afferent::report::escape::escape;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

fn scan(root: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["scan", "--format", "tsv", "--root"])
        .arg(root)
        .args(more)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn with_one_package() -> RpmRoot {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    root
}

// The loss: a guest of which nothing is known, because of something that rpm itself never looks at.
#[test]
fn what_is_no_database_in_one_place_does_not_hide_the_one_in_the_next() {
    let root = with_one_package();
    let place = root.path().join("usr/lib/sysimage/rpm");
    let directory = || fs::create_dir_all(&place).unwrap();
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let obstacles: [&dyn Fn(); 5] = [
        &|| symlink("rpm", &place).unwrap(),
        &|| fs::write(&place, "").unwrap(),
        &|| {
            directory();
            symlink("Packages.db", place.join("Packages.db")).unwrap();
        },
        &|| {
            directory();
            mkfifo(&place.join("rpmdb.sqlite"), Mode::S_IRWXU).unwrap();
        },
        &|| fs::create_dir_all(place.join("Packages")).unwrap(),
    ];
    for (n, put_there) in obstacles.iter().enumerate() {
        put_there();
        let output = scan(root.path(), &[]);
        assert_eq!(
            sorted(&output.stdout),
            root.rpm_qa(),
            "{n}: {}",
            said(&output)
        );
        // Alone, it is named.
        let alone = scan(root.path(), &["--dbpath", "usr/lib/sysimage/rpm"]);
        assert_eq!(alone.status.code(), Some(1));
        let said = said(&alone);
        assert!(said.contains(&place.display().to_string()), "{n}: {said}");
        assert!(!said.contains("no rpm database found"), "{n}: {said}");
        let _ = fs::remove_file(&place);
        let _ = fs::remove_dir_all(&place);
    }
}

#[test]
fn a_dbpath_that_is_a_file_is_answered_with_its_directory() {
    let root = with_one_package();
    let output = scan(root.path(), &["--dbpath", "/var/lib/rpm/rpmdb.sqlite"]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains("is a file; --dbpath takes the directory of the database, here var/lib/rpm"),
        "{said}"
    );
}

#[test]
fn a_directory_that_may_not_be_entered_is_answered_with_what_to_do() {
    if !is_root() {
        return;
    }
    let root = with_one_package();
    let program = root.path().join("afferent");
    fs::copy(env!("CARGO_BIN_EXE_afferent"), &program).unwrap();
    for path in [root.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(root.dbpath(), fs::Permissions::from_mode(0o700)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["scan", "--root"])
        .arg(root.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains(&root.dbpath().display().to_string()) && said.contains("run as root"),
        "{said}"
    );
}

#[test]
fn files_beside_the_database_are_resolved_below_the_root_as_well() {
    let name = "amazonlinux-2023-walpending-sqlite";
    let root = fixtures::unpack(name);
    let database = root.path().join("var/lib/rpm");
    let data = root.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::rename(database.join("rpmdb.sqlite-wal"), data.join("log")).unwrap();
    symlink("/data/log", database.join("rpmdb.sqlite-wal")).unwrap();
    let output = scan(root.path(), &[]);
    let list = sorted(&output.stdout);
    assert_eq!(list, fixtures::expected(name), "{}", said(&output));
}

// The loss: a scan that never ends.
#[test]
fn fifos_in_place_of_any_file_of_the_system_do_not_block() {
    let root = with_one_package();
    let at = |name: &str| root.path().join(name);
    for directory in ["var/lib/dnf", "usr/lib", "etc"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    fs::remove_file(at("etc/os-release")).unwrap();
    for file in [
        "etc/os-release",
        "usr/lib/os-release",
        "var/lib/dnf/history.sqlite",
    ] {
        mkfifo(&at(file), Mode::S_IRWXU).unwrap();
    }
    let output = scan(root.path(), &[]);
    assert_eq!(sorted(&output.stdout), root.rpm_qa());
    let said = said(&output);
    assert!(
        said.contains("etc/os-release: cannot be read: is no regular file"),
        "{said}"
    );
    assert!(
        said.contains("history.sqlite: cannot be read: is no regular file"),
        "{said}"
    );
    let name = ".rpm.lock";
    let _ = fs::remove_file(root.dbpath().join(name));
    mkfifo(&root.dbpath().join(name), Mode::S_IRWXU).unwrap();
    let output = scan(root.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains(".rpm.lock: cannot be read: is no regular file"),
        "{said}"
    );
}

// The loss: a directory that is there, and that the program says is not.
#[test]
fn arguments_that_are_not_utf8_are_taken_byte_for_byte() {
    let root = with_one_package();
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::rename(root.dbpath(), root.path().join(name)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["scan", "--format", "json", "--root"])
        .arg(root.path())
        .arg("--dbpath")
        .arg(name)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    let expected = format!("sqlite:{}", escape(name.as_bytes()));
    assert_eq!(report["package_db"], expected);

    // All of an agent's files, and the variable that names one of them.
    let home = tempfile::tempdir().unwrap();
    let home = home.path().join(name);
    fs::create_dir(&home).unwrap();
    let moved = home.join("root");
    fs::create_dir(&moved).unwrap();
    fs::rename(root.path().join(name), moved.join(name)).unwrap();
    let mut socket = OsString::from("unix:");
    socket.push(home.join("socket"));
    let state = home.join("state");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .arg("serve")
        .arg("--listen")
        .arg(&socket)
        .arg("--root")
        .arg(&moved)
        .arg("--dbpath")
        .arg(name)
        .env("AFFERENT_STATE_DIR", &state)
        .spawn()
        .unwrap();
    let pulled = eventually("the agent answers", || {
        let pulled = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["pull"])
            .arg(&socket)
            .output()
            .unwrap();
        pulled.status.success().then_some(pulled)
    });
    assert!(String::from_utf8_lossy(&pulled.stdout).contains("sample"));
    let status = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["status", "--json", "--state-dir"])
        .arg(&state)
        .output()
        .unwrap();
    let _ = agent.kill();
    let _ = agent.wait();
    assert!(String::from_utf8_lossy(&status.stdout).contains("serve"));
    assert!(state.join("serve.redb").exists());
}

// The loss: packages without repositories, and nobody knows why.
#[test]
fn systems_that_keep_no_history_by_their_kind_are_named() {
    for (mark, why) in [
        ("var/lib/yum/history", "the history of yum"),
        ("run/ostree-booted", "came with an image"),
        ("usr/lib/bootc", "came with an image"),
    ] {
        let root = with_one_package();
        assert!(!said(&scan(root.path(), &[])).contains(why));
        fs::create_dir_all(root.path().join(mark)).unwrap();
        let output = scan(root.path(), &[]);
        assert!(said(&output).contains(why), "{mark}: {}", said(&output));
        assert_eq!(sorted(&output.stdout), root.rpm_qa());
    }
}
