//! Tests of what ends an attempt at a consistent view, and of how long attempts go on.

use super::*;
use crate::scan::error::ScanError;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use tempfile::TempDir;

/// A root with a database whose `-wal` holds transactions that the main file lacks.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(root.main().parent().unwrap()).unwrap();
        for (fixture, file) in [
            ("amazonlinux-2023-sqlite", "rpmdb.sqlite"),
            ("amazonlinux-2023-walpending-sqlite", "rpmdb.sqlite-wal"),
        ] {
            let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rpmdb");
            let packed = fs::read(fixtures.join(fixture).join(format!("{file}.xz"))).unwrap();
            let mut unpacked = Vec::new();
            lzma_rs::xz_decompress(&mut &packed[..], &mut unpacked).unwrap();
            fs::write(root.main().with_file_name(file), unpacked).unwrap();
        }
        root.settle();
        root
    }

    fn main(&self) -> PathBuf {
        self.0.path().join("var/lib/rpm/rpmdb.sqlite")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("var/lib/rpm/rpmdb.sqlite-wal")
    }

    /// Waits for the next tick of the clock that stamps files.
    fn settle(&self) {
        for path in [self.main(), self.log()] {
            while !Stamp::of(&fs::metadata(&path).unwrap()).settled() {
                thread::yield_now();
            }
        }
    }

    /// One attempt, with something done at each of its points.
    fn view<T>(
        &self,
        mut may_go_on: impl FnMut(u32) -> Option<Attempt<()>>,
        mut read: impl FnMut() -> Result<T, rpmdb::Error>,
    ) -> Result<Attempt<T>, ScanError> {
        let mut asked = 0;
        let may_go_on = &mut || {
            asked += 1;
            Ok(may_go_on(asked))
        };
        let read = &mut |_: &Stamps, _: &mut rpmdb::Database<OpenFile>| read();
        view(
            self.0.path(),
            &self.main(),
            Backend::Sqlite,
            may_go_on,
            read,
        )
    }

    fn take<T>(
        &self,
        retry_for: Duration,
        mut read: impl FnMut() -> Result<T, rpmdb::Error>,
    ) -> Result<Taken, ScanError> {
        let request = ScanRequest {
            root: self.0.path(),
            dbpath: None,
            retry_for,
            on_lock: OnLock::Wait,
        };
        let locate = || crate::scan::locate(self.0.path(), None);
        take(&request, locate, |_, _, _| read()).map(|(_, _, taken)| taken)
    }
}

fn append(path: &Path) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(&[0; 64]).unwrap();
}

fn is_changed<T>(attempt: &Result<Attempt<T>, ScanError>) -> bool {
    matches!(attempt, Ok(Attempt::Changed))
}

/// Damage that is none: a file was read in the middle of being written.
fn torn() -> Result<(), rpmdb::Error> {
    Err(rpmdb::Error::Io(io::Error::other("torn")))
}

#[test]
fn a_quiet_database_is_read_once_and_what_is_wrong_with_it_is_its_own() {
    let root = Root::new();
    let done = root.view(|_| None, || Ok(7));
    assert!(matches!(done, Ok(Attempt::Done(7))));
    let unreadable = root.view(|_| None, torn).map(|_| ());
    let said = unreadable.unwrap_err().to_string();
    assert!(
        said.contains("rpmdb.sqlite") && said.contains("torn"),
        "{said}"
    );
    let taken = root.take(Duration::ZERO, || Ok(())).unwrap();
    assert_eq!((taken.attempts, taken.lock), (1, Lock::Free));
}

// The loss: a database reported as damaged, or half of a transaction reported, because it was written to
// while it was read.
#[test]
fn what_was_read_while_the_main_file_changed_is_thrown_away_even_if_it_looks_damaged() {
    let write: fn(&Path) = append;
    let replace: fn(&Path) = |path| {
        let new = path.with_extension("new");
        fs::copy(path, &new).unwrap();
        fs::rename(new, path).unwrap();
    };
    let remove: fn(&Path) = |path| fs::remove_file(path).unwrap();
    for change in [write, replace, remove] {
        for read in [|| Ok(()), torn] {
            let root = Root::new();
            let attempt = root.view(
                |_| None,
                || {
                    change(&root.main());
                    read()
                },
            );
            assert!(is_changed(&attempt));
        }
    }
    let root = Root::new();
    fs::remove_file(root.main()).unwrap();
    assert!(is_changed(&root.view(|_| None, || Ok(()))));
}

#[test]
fn a_log_may_grow_after_it_was_read_and_not_before_nor_begin_anew() {
    // Before it was read.
    let root = Root::new();
    let mut reads = 0;
    let attempt = root.view(
        |asked| {
            if asked == 1 {
                append(&root.log());
            }
            None
        },
        || {
            reads += 1;
            Ok(())
        },
    );
    assert!(is_changed(&attempt));
    assert_eq!(reads, 0, "half of a transaction may be in it");
    // After it was read: the reader is ahead of it.
    let root = Root::new();
    let attempt = root.view(
        |_| None,
        || {
            append(&root.log());
            Ok(())
        },
    );
    assert!(matches!(attempt, Ok(Attempt::Done(()))));
    // Its frames are overwritten from the beginning.
    let root = Root::new();
    let attempt = root.view(
        |_| None,
        || {
            let mut log = fs::read(root.log()).unwrap();
            log[16..24].fill(0xee);
            fs::write(root.log(), log).unwrap();
            Ok(())
        },
    );
    assert!(is_changed(&attempt));
}

#[test]
fn a_transaction_that_begins_before_or_while_the_log_is_read_ends_the_attempt() {
    for point in [1, 2] {
        let root = Root::new();
        let mut reads = 0;
        let attempt = root.view(
            |asked| (asked == point).then_some(Attempt::Locked(Some(4711))),
            || {
                reads += 1;
                Ok(())
            },
        );
        assert!(
            matches!(attempt, Ok(Attempt::Locked(Some(4711)))),
            "{point}"
        );
        assert_eq!(reads, 0);
    }
}

#[test]
fn a_database_that_changes_all_the_time_is_given_up_when_its_time_is_over_and_one_that_stops_is_read()
 {
    let root = Root::new();
    let never = root.take(Duration::ZERO, || {
        append(&root.main());
        Ok(())
    });
    assert!(
        matches!(never, Err(ScanError::KeepsChanging { attempts: 1, .. })),
        "{never:?}"
    );
    let root = Root::new();
    let mut writes = 3;
    let taken = root.take(Duration::from_secs(600), || {
        if writes > 0 {
            writes -= 1;
            append(&root.main());
        }
        Ok(())
    });
    assert!(taken.unwrap().attempts >= 4);
}

#[test]
fn a_root_without_a_database_is_not_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let request = ScanRequest {
        root: root.path(),
        dbpath: None,
        retry_for: Duration::from_secs(600),
        on_lock: OnLock::Wait,
    };
    let locate = || crate::scan::locate(root.path(), None);
    let none = take(&request, locate, |_, _, _| Ok(())).map(|_| ());
    assert!(
        matches!(none, Err(ScanError::NoDatabase { .. })),
        "{none:?}"
    );
}

/// Loss prevented: "no rpm database" where a rebuild puts the new one in its place just after nothing was found.
#[test]
fn a_database_that_comes_into_its_place_after_the_first_look_is_found() {
    let root = Root::new();
    let first = std::cell::Cell::new(true);
    let locate = || match first.take() {
        true => Err(ScanError::NoDatabase { looked: Vec::new() }),
        false => crate::scan::locate(root.0.path(), None),
    };
    let request = ScanRequest {
        root: root.0.path(),
        dbpath: None,
        retry_for: Duration::from_secs(600),
        on_lock: OnLock::Wait,
    };
    let (_, located, _) = take(&request, locate, |_, _, _| Ok(())).unwrap();
    assert_eq!(located.main_file, root.main());
}
