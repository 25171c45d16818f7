//! Version 0.1.0: what it wrote to disk and to its sockets, what it said of that, and the program itself.
//!
//! `tests/fixtures/v0.1.0/README.md` says what each file is.

use super::fixtures::unpack_file;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v0.1.0")
}

/// A state directory with a copy of this store in it, and the database file there: `serve`,
/// `serve-long`, `sense` or `mirror`.
pub fn store(name: &str) -> (TempDir, PathBuf) {
    let state = tempfile::tempdir().unwrap();
    let file = unpack(name, state.path());
    (state, file)
}

/// Puts a copy of this store into a state directory, which is made if it is not there.
pub fn unpack(name: &str, state: &Path) -> PathBuf {
    fs::create_dir_all(state).unwrap();
    let service = name.split('-').next().unwrap();
    let file = state.join(format!("{service}.redb"));
    unpack_file(&directory().join(format!("{name}.redb.xz")), &file);
    file
}

/// What 0.1.0 said of these files.
pub fn expected() -> Value {
    let text = fs::read(directory().join("expected.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// A request and the answer to it, as frames with their length: `01-get-full` and so on.
pub fn exchange(name: &str) -> (Vec<u8>, Vec<u8>) {
    let read = |side| fs::read(directory().join(format!("wire/{name}.{side}.bin"))).unwrap();
    (read("request"), read("response"))
}

/// The program, if `make v0.1.0` has built it.
pub fn binary() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/v0.1.0/afferent");
    path.exists().then_some(path)
}

/// Fails unless everything in `wanted` is in `found`, where objects may have more members; lists are
/// compared whole.
#[track_caller]
pub fn assert_contains(found: &Value, wanted: &Value) {
    if let Some(difference) = difference("", found, wanted) {
        panic!("{difference}\nin {found:#}");
    }
}

fn difference(path: &str, found: &Value, wanted: &Value) -> Option<String> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            let found = found.get(key).unwrap_or(&Value::Null);
            difference(&format!("{path}/{key}"), found, wanted)
        }),
        (Value::Array(found), Value::Array(wanted)) if found.len() == wanted.len() => {
            let mut pairs = found.iter().zip(wanted).enumerate();
            pairs.find_map(|(n, (found, wanted))| difference(&format!("{path}/{n}"), found, wanted))
        }
        (found, wanted) if found == wanted => None,
        (found, wanted) => Some(format!("{path} is {found} and not {wanted}")),
    }
}
