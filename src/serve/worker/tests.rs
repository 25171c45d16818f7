//! Tests of scanning and keeping.

use super::*;
use crate::serve::Pace;
use crate::serve::machine::ScannedRoot;
use crate::store::Limits;
use std::time::Duration;

pub(in crate::serve) fn config(root: &Path, state_dir: &Path) -> Config {
    let hour = Duration::from_secs(3600);
    Config {
        listen: Vec::new(),
        root: root.to_owned(),
        dbpath: None,
        state_dir: state_dir.to_owned(),
        pace: Pace {
            reactive: true,
            debounce: Duration::ZERO,
            max_delay: hour,
            burst: 1,
            refill: hour,
            transaction_timeout: hour,
            interval: hour,
        },
        allow_cid: Vec::new(),
        conn_deadline: hour,
        tls: crate::serve::TlsConfig {
            files: None,
            name_from_id: false,
            kubevirt: crate::transport::KubevirtOptions {
                ca_source: "vsock:2:1".parse().unwrap(),
                ca_timeout: hour,
                client_name: "c".parse().unwrap(),
            },
        },
        repo_cpe: Source::Sensor,
        require_mapping: false,
        repo_cpe_fetch: Default::default(),
        safety_poll: hour,
        damaged: Limits::default(),
    }
}

pub(in crate::serve) fn parts(config: &Config) -> WorkerParts {
    WorkerParts {
        packages: Box::new(ScannedRoot::new(config)),
        machine: machine(&config.root),
        wall: WallClock::default(),
        draw_epoch,
    }
}

// The loss: an agent that scans nothing any more because one scan met what nobody had thought of.
#[test]
fn after_a_scan_that_panicked_the_next_one_begins_with_a_new_scanner() {
    let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = config(root.path(), state.path());
    let (worker, _) = Worker::open(&config, parts(&config)).unwrap();
    let before = worker.progress();
    let inner = Arc::clone(&worker.inner);
    let scan = std::thread::spawn(move || {
        let _inner = inner.lock().unwrap();
        std::panic::resume_unwind(Box::new("as in a scan"));
    });
    assert!(scan.join().is_err() && worker.inner.is_poisoned());
    let outcome = worker.scan(Trigger::Reactive, false)();
    assert!(
        matches!(outcome, Outcome::ScanFailed(_)),
        "there is nothing to scan"
    );
    assert!(!worker.inner.is_poisoned());
    assert!(
        Arc::ptr_eq(&before, &worker.progress()),
        "the watchdog looks at it"
    );
}

/// A root with the database of this fixture.
fn root_with(fixture: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let database = root.path().join("var/lib/rpm");
    std::fs::create_dir_all(&database).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rpmdb");
    let packed = std::fs::read(fixtures.join(fixture).join("rpmdb.sqlite.xz")).unwrap();
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut &packed[..], &mut unpacked).unwrap();
    std::fs::write(database.join("rpmdb.sqlite"), unpacked).unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(
        root.path().join("etc/os-release"),
        "ID=fedora\nVERSION_ID=33\n",
    )
    .unwrap();
    root
}

#[test]
fn what_was_found_is_new_once_and_then_the_same_and_a_database_without_packages_is_empty() {
    let state = tempfile::tempdir().unwrap();
    let root = root_with("fedora-33-subset-sqlite");
    let config = config(root.path(), state.path());
    let (worker, kept) = Worker::open(&config, parts(&config)).unwrap();
    assert!(kept.is_none());
    let scan = |trigger| worker.scan(trigger, false)();
    let first = scan(Trigger::Scheduled);
    assert!(matches!(first, Outcome::Found(Recorded::New(_), _, _)));
    for trigger in [Trigger::Scheduled, Trigger::Reactive] {
        assert!(matches!(
            scan(trigger),
            Outcome::Found(Recorded::Same, _, _)
        ));
    }
    drop(worker);
    // What was kept is served before anything is scanned again.
    let (_, kept) = Worker::open(&config, parts(&config)).unwrap();
    assert!(kept.is_some());

    // The database of a system into which nothing was installed yet.
    let state = tempfile::tempdir().unwrap();
    let root = root_with("fedora-33-subset-sqlite");
    let database = root.path().join("var/lib/rpm/rpmdb.sqlite");
    std::fs::remove_file(&database).unwrap();
    let made = rusqlite::Connection::open(&database).unwrap();
    let table =
        "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)";
    made.execute_batch(table).unwrap();
    drop(made);
    let config = self::config(root.path(), state.path());
    let (worker, _) = Worker::open(&config, parts(&config)).unwrap();
    match worker.scan(Trigger::Scheduled, false)() {
        Outcome::Empty(why) => assert!(why.contains("holds no package yet"), "{why}"),
        Outcome::ScanFailed(why) => panic!("{why}"),
        _ => panic!("there is no package"),
    }
}

// The loss: a mapping that is missing and of which nobody hears, because something else is wrong as well.
#[test]
fn each_thing_that_makes_a_report_poorer_is_told_and_the_fact_names_the_first() {
    type Prepare = fn(&Path);
    let history: Prepare =
        |root| std::fs::create_dir_all(root.join("var/lib/dnf/history.sqlite")).unwrap();
    let release: Prepare = |root| {
        let file = root.join("etc/os-release");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(file).unwrap();
    };
    let malformed: Prepare = |root| std::fs::write(root.join("map.json"), "{").unwrap();
    let sound: Prepare = |root| std::fs::write(root.join("map.json"), r#"{"data":{}}"#).unwrap();
    let cases: [(&[Prepare], &[&str], &str); 6] = [
        (&[sound], &[], "none"),
        (&[], &["no mapping"], "mapping_missing"),
        (&[malformed], &["not a mapping"], "mapping_unreadable"),
        (&[history, sound], &["history.sqlite"], "unreadable"),
        (&[history], &["history.sqlite", "no mapping"], "unreadable"),
        (
            &[release, history, malformed],
            &["os-release", "history.sqlite", "not a mapping"],
            "unreadable",
        ),
    ];
    for (prepare, said, fact) in cases {
        let state = tempfile::tempdir().unwrap();
        let root = root_with("fedora-33-subset-sqlite");
        prepare.iter().for_each(|prepare| prepare(root.path()));
        let map = root.path().join("map.json");
        let config = Config {
            repo_cpe: Source::File(map.clone()),
            ..config(root.path(), state.path())
        };
        let (worker, _) = Worker::open(&config, parts(&config)).unwrap();
        let Outcome::Found(_, scan, _) = worker.scan(Trigger::Scheduled, false)() else {
            panic!("nothing was found");
        };
        assert_eq!(scan.facts[facts::PROVENANCE], fact, "{said:?}");
        let troubles = worker.kept().troubles;
        assert_eq!(troubles.len(), said.len(), "{troubles:?}");
        for (trouble, said) in troubles.iter().zip(said) {
            assert!(trouble.contains(said), "{trouble}");
        }
    }
}

#[test]
fn a_machine_id_is_one_absent_or_unreadable_and_never_another_machine() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("etc/machine-id");
    let machine_now = || machine(root.path());
    assert!(matches!(machine_now(), (Machine::Known(None), None)));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    for (text, is_known) in [
        ("0123456789abcdef0123456789ABCDEF\n", true),
        ("uninitialized\n", false),
        ("", false),
        ("0123456789abcdef", false),
    ] {
        std::fs::write(&file, text).unwrap();
        let (Machine::Known(id), None) = machine_now() else {
            panic!("{text:?} can be read");
        };
        assert_eq!(id.is_some(), is_known, "{text:?}");
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let (Machine::Unreadable, Some(why)) = machine_now() else {
        panic!("a directory is no machine-id");
    };
    assert!(why.contains("etc/machine-id: cannot be read"), "{why}");
}
