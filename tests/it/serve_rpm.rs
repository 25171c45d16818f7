//! What is served after everything that the real rpm does to its database, and that nothing of it
//! is touched by the agent: as root, as a user who owns nothing, and where it may not write.

use crate::support::agent::{Agent, Answer, Launch, is_root, listing};
use crate::support::bulk;
use crate::support::eventually;
use crate::support::held::Held;
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::report::facts;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Package files for all three ways of running.
struct Files {
    first: PathBuf,
    second: PathBuf,
    hundred: bulk::Bulk,
    killed: bulk::Bulk,
}

impl Files {
    fn build(root: &RpmRoot) -> Self {
        Self {
            first: root.build(&Spec {
                name: "first",
                epoch: Some(2),
                modularity_label: Some("module:stream:1:2"),
                ..Spec::default()
            }),
            second: root.build(&Spec {
                name: "first",
                epoch: Some(2),
                version: "2",
                arch: "x86_64",
                ..Spec::default()
            }),
            hundred: bulk::build("hundred", "1", 100),
            killed: bulk::build("killed", "1", 100),
        }
    }
}

struct Matrix {
    root: RpmRoot,
    agent: Agent,
    database: PathBuf,
}

impl Matrix {
    /// Does something to the database, and waits until a scan that began later is served.
    fn after(&self, what: &str, act: impl FnOnce(&RpmRoot)) -> Answer {
        let before = self.agent.get();
        act(&self.root);
        let list = self.root.rpm_qa();
        let scanned = |answer: &Answer| answer.fact(facts::LAST_SCAN_AT).to_owned();
        eventually(&format!("a scan after {what}"), || {
            (scanned(&self.agent.get()) != scanned(&before)).then_some(())
        });
        let left = listing(&self.database);
        let answer = self.agent.wait_for_list(&list);
        // The loss: an agent that breaks rpm for others, or wakes itself up for ever.
        assert_eq!(listing(&self.database), left, "touched after {what}");
        assert_eq!(answer.fact(facts::MID_TRANSACTION), "");
        answer
    }
}

/// Everything that happens to a database, one thing after the other, with no poll to help.
fn everything_that_rpm_does_is_served(launch: impl FnOnce(Launch, &Path) -> Launch) {
    let root = RpmRoot::new();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let files = Files::build(&root);
    let launch = launch(
        Launch::on(root.path()).flag("safety-poll", "1h"),
        root.path(),
    );
    let agent = launch.start();
    let mut matrix = Matrix {
        database: root.dbpath(),
        root,
        agent,
    };
    matrix
        .agent
        .wait_until_said("the first package is waited for");

    matrix.after("install", |root| root.install(&[&files.first]));
    matrix.after("upgrade", |root| root.upgrade(&[&files.second]));
    let installed = matrix.after("a transaction of 100 packages", |root| {
        root.install(&files.hundred.files);
    });
    let imported = matrix.after("the import of a key", |root| {
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/key.asc");
        run(root.rpm().args(["--import", key]));
        let all = root.rpm().arg("-qa").output().unwrap().stdout;
        assert!(String::from_utf8_lossy(&all).contains("gpg-pubkey-"));
    });
    assert_eq!(imported.key(), installed.key(), "a key is no package");
    let rebuilt = matrix.after("rebuilddb", |root| drop(root.rpmdb(["--rebuilddb"])));
    assert_eq!(rebuilt.key(), installed.key(), "nothing changed");
    matrix.after("an erasure in the rebuilt database", |root| {
        root.erase(&["first"]);
    });
    let before = matrix.root.rpm_qa().lines().count();
    let killed = matrix.after("a killed transaction", |root| {
        kill_in_the_middle(root, &files.killed.files);
    });
    let packages = killed.list().lines().count() - before;
    assert!((1..100).contains(&packages), "{packages} of 100");

    // As a distribution does it that moves its database: the old place becomes a link.
    matrix.database = matrix.root.path().join("usr/lib/sysimage/rpm");
    let moved = matrix.after("the move of the database", |root| {
        let new = root.path().join("usr/lib/sysimage");
        fs::create_dir_all(&new).unwrap();
        fs::rename(root.dbpath(), new.join("rpm")).unwrap();
        symlink("../../usr/lib/sysimage/rpm", root.dbpath()).unwrap();
    });
    assert_ne!(moved.key(), killed.key(), "another place is another report");
    matrix.after("an installation in the new place", |root| {
        root.install(&[&files.first]);
    });
    matrix.after("the move back", |root| {
        fs::remove_file(root.dbpath()).unwrap();
        fs::rename(root.path().join("usr/lib/sysimage/rpm"), root.dbpath()).unwrap();
        // The listing is asked for where it was; an empty directory is no database.
        fs::create_dir(root.path().join("usr/lib/sysimage/rpm")).unwrap();
    });
    matrix.database = matrix.root.dbpath();
    matrix.after("an erasure in the old place", |root| root.erase(&["first"]));

    // Nothing at all is written by a first and full scan either.
    let left = listing(&matrix.database);
    let launch = Launch::on(matrix.root.path());
    let again = launch.start();
    again.wait_for_list(&matrix.root.rpm_qa());
    drop(again);
    let names = |listing: &[(PathBuf, u64, std::time::SystemTime)]| {
        listing.iter().map(|l| l.0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&listing(&matrix.database)), names(&left));
    assert!(matrix.agent.terminate().success());
}

// The loss: a served list that is not what the system says; a touched database. As in the next two.
#[test]
fn as_root_everything_that_rpm_does_is_served() {
    everything_that_rpm_does_is_served(|launch, _| launch);
}

#[test]
fn as_an_unprivileged_user_everything_that_rpm_does_is_served() {
    if is_root() {
        everything_that_rpm_does_is_served(|launch, _| launch.unprivileged());
    }
}

#[test]
fn where_everything_is_read_only_everything_that_rpm_does_is_served() {
    if is_root() {
        everything_that_rpm_does_is_served(|launch, root| {
            let script =
                "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
            launch.under(["unshare", "-m", "sh", "-c", script, root.to_str().unwrap()])
        });
    }
}

// The loss: an agent that reads the main file alone and misses all that a reader keeps in the log.
#[test]
fn packages_that_are_only_in_the_log_are_served() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let file = root.build(&Spec {
        name: "in-the-log",
        ..Spec::default()
    });
    let launch = Launch::on(root.path());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let reader = rusqlite::Connection::open(root.dbpath().join("rpmdb.sqlite")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let count = || -> u32 {
        reader
            .query_row("SELECT count(*) FROM Packages", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(), 1);
    // rpm waits for the reader, in vain, and leaves what it wrote in the log.
    root.install(&[file]);
    let log = fs::metadata(root.dbpath().join("rpmdb.sqlite-wal")).unwrap();
    assert!(log.len() > 0, "nothing is in the log: nothing is tested");
    assert_eq!(agent.wait_for_rpm(&root).list().lines().count(), 2);
    assert_eq!(count(), 1, "the reader was disturbed");
}

// The loss: an agent that scans because somebody, or it itself, has looked at the database.
#[test]
fn queries_cause_no_scan() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    // What the installation has caused is over when nothing comes for as long as it may take.
    let quiet = |known: &Answer| {
        let answer = agent.wait_for_other_than(known, Duration::from_secs(1));
        answer.fact(facts::LAST_SCAN_AT) == known.fact(facts::LAST_SCAN_AT)
    };
    let known = eventually("it is quiet", || {
        let known = agent.get();
        quiet(&known).then_some(known)
    });
    for query in [
        &["-qa"][..],
        &["-q", "sample"],
        &["-V", "sample"],
        &["-qf", "/opt"],
    ] {
        let _ = root.rpm().args(query).output().unwrap();
        assert!(quiet(&known), "rpm {query:?} has caused a scan");
    }
}

// The loss: a report of the database that is left over, while packages change in the other one.
#[test]
fn of_two_databases_the_one_in_use_is_served() {
    let root = RpmRoot::new();
    let (old, new) = (
        root.build(&Spec::default()),
        root.build(&Spec {
            name: "new",
            ..Spec::default()
        }),
    );
    root.install(&[old]);
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let left_over = root.dbpath();
    let in_use = root.path().join("usr/lib/sysimage/rpm");
    fs::create_dir_all(&in_use).unwrap();
    for entry in fs::read_dir(&left_over).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), in_use.join(entry.file_name())).unwrap();
    }
    run(std::process::Command::new("rpm")
        .arg("--dbpath")
        .arg(&in_use)
        .args(["-i", "--justdb", "--nodeps", "--nosignature"])
        .arg(new));
    let list = crate::support::rpm_root::rpm_qa(&in_use);
    assert_eq!(list.lines().count(), 2);
    agent.wait_for_list(&list);
    assert_eq!(root.rpm_qa().lines().count(), 1);
}

// The loss: a guest that is silent for ever because a scriptlet hangs; or a half-done state that is
// reported as a whole one.
#[test]
fn a_hung_transaction_is_reported_as_one_after_its_timeout() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let launch = Launch::on(root.path()).flag("transaction-timeout", "1s");
    let agent = launch.start();
    let before = agent.wait_for_rpm(&root);
    let lock = Held::lock(&root.dbpath().join(".rpm.lock"));
    touch_as_a_write(&root);
    let answer = eventually("the report in the middle", || {
        let answer = agent.get();
        (answer.fact(facts::MID_TRANSACTION) == "true").then_some(answer)
    });
    assert_eq!(answer.list(), before.list());
    drop(lock);
    eventually("the report after it", || {
        let answer = agent.get();
        answer.fact(facts::MID_TRANSACTION).is_empty().then_some(())
    });
}

/// Opens the main file for writing and closes it, as a transaction does.
fn touch_as_a_write(root: &RpmRoot) {
    let main = root.dbpath().join("rpmdb.sqlite");
    drop(fs::OpenOptions::new().append(true).open(main).unwrap());
}

/// Starts a transaction and kills it when some of its packages are in.
fn kill_in_the_middle(root: &RpmRoot, files: &[PathBuf]) {
    let before = root.rpm_qa().lines().count();
    let mut transaction = root.start_install(files);
    eventually("a part of the packages is in", || {
        let done = transaction.try_wait().unwrap();
        assert!(done.is_none(), "it ended before it could be killed");
        (root.rpm_qa().lines().count() > before).then_some(())
    });
    transaction.kill().unwrap();
    transaction.wait().unwrap();
}

fn run(command: &mut std::process::Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
