//! Tests of opening, damage and failed writes.

use super::*;
use redb::TableDefinition;

const TABLE: TableDefinition<&str, u64> = TableDefinition::new("test");

#[test]
fn what_was_written_is_there_after_reopening_and_only_for_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()).store, 7).unwrap();
    let opened = open(dir.path());
    assert_eq!(get(&opened.store), Some(7));
    assert!(opened.moved_aside.is_none());
    let mode = fs::metadata(opened.store.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_in_use_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = Store::open(dir.path(), "test.redb", 1 << 20);
    assert!(matches!(second, Err(StoreError::InUse { .. })));
}

#[test]
fn any_damaged_file_is_moved_aside_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()).store, 7).unwrap();
    let path = dir.path().join("test.redb");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    // A committed page other than the header's: its checksum no longer holds.
    flipped
        .chunks_exact_mut(4096)
        .skip(1)
        .for_each(|page| page[40] ^= 0x10);
    for damaged in [
        b"not a database".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        flipped,
    ] {
        fs::write(&path, &damaged).unwrap();
        let opened = open(dir.path());
        let aside = opened.moved_aside.expect("damage is noticed");
        assert_eq!(fs::read(&aside).unwrap().len(), damaged.len());
        put(&opened.store, 8).unwrap();
        assert_eq!(get(&opened.store), Some(8));
        drop(opened.store);
        fs::remove_file(aside).unwrap();
    }
}

// The loss: a service that refuses to work until it is restarted, long after its disk is well again.
#[test]
fn a_file_that_could_not_be_opened_again_is_opened_by_the_next_read_or_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).store;
    put(&store, 7).unwrap();
    let (path, away) = (dir.path().join("test.redb"), dir.path().join("away"));
    for read in [true, false] {
        store.state.write().unwrap().as_mut().unwrap().failed = true;
        fs::rename(&path, &away).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(put(&store, 8).is_err());
        assert!(store.read(|_| Ok(())).is_err());
        fs::remove_dir(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        if !read {
            put(&store, 7).unwrap();
        }
        assert_eq!(get(&store), Some(7));
    }
}

#[test]
fn a_file_that_cannot_be_had_again_is_kept_and_replaced_only_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.redb");
    let options = StoreOptions {
        on_damage: OnDamage::Keep,
        ..StoreOptions::new(1 << 20)
    };
    let open = || Store::open_with(dir.path(), "test.redb", options);
    put(&open().unwrap().store, 7).unwrap();
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let missing = open().err().unwrap();
    assert!(matches!(
        missing,
        StoreError::Lost {
            what: "is missing",
            ..
        }
    ));
    assert!(!path.exists(), "nothing is begun");
    for (content, is_lost) in [(&b""[..], true), (b"damaged", false)] {
        fs::write(&path, content).unwrap();
        let error = open().err().unwrap();
        assert_eq!(matches!(error, StoreError::Lost { .. }), is_lost, "{error}");
        assert_eq!(error.is_corrupt(), !is_lost, "{error}");
        assert_eq!(fs::read(&path).unwrap(), content, "it stays as it is");
    }
    // Put back.
    fs::write(&path, &whole).unwrap();
    assert_eq!(get(&open().unwrap().store), Some(7));
    // Given up.
    let replaced = Store::replace(dir.path(), "test.redb", options).unwrap();
    assert!(replaced.moved_aside.unwrap().exists());
    put(&replaced.store, 8).unwrap();
    let in_use = Store::replace(dir.path(), "test.redb", options);
    assert!(matches!(in_use, Err(StoreError::InUse { .. })));
    drop(replaced.store);
    assert_eq!(get(&open().unwrap().store), Some(8));
    // As 0.1 leaves it: without a mark, but with what was moved aside.
    fs::remove_file(dir.path().join("test.redb.begun")).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(), Err(StoreError::Lost { .. })));
}

/// What a crash leaves of a file that was being begun: redb writes its magic number last.
#[test]
fn a_file_that_was_never_whole_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let unborn = dir.path().join("test.redb.new");
    fs::write(&unborn, [0; 8192]).unwrap();
    let opened = open(dir.path());
    put(&opened.store, 7).unwrap();
    assert_eq!(opened.moved_aside, None);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_file_of_a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).store;
    store
        .write(|tx| schema::set(tx, schema::FORMAT + 1))
        .unwrap();
    drop(store);
    let bytes = || fs::read(dir.path().join("test.redb")).unwrap();
    let before = bytes();
    let again = Store::open(dir.path(), "test.redb", 1 << 20);
    assert!(matches!(again, Err(StoreError::Newer { .. })));
    assert!(bytes() == before, "not a byte of it changes");
}

fn open(dir: &Path) -> Opened {
    Store::open(dir, "test.redb", 1 << 20).unwrap()
}

fn put(store: &Store, value: u64) -> Result<(), StoreError> {
    store.write(|tx| Ok(tx.open_table(TABLE)?.insert("key", value).map(drop)?))
}

fn get(store: &Store) -> Option<u64> {
    store
        .read(|tx| Ok(tx.open_table(TABLE)?.get("key")?.map(|v| v.value())))
        .unwrap()
}
