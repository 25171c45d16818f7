//! Real databases, unpacked into a scratch root.

use std::fs;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where the packed databases are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rpmdb")
}

/// The names of all of them, sorted.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 14);
    names
}

/// A root with a copy of the database of that name in `var/lib/rpm`.
pub fn unpack(name: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let database = root.path().join("var/lib/rpm");
    fs::create_dir_all(&database).unwrap();
    copy(&directory().join(name), &database);
    if name == "amazonlinux-2023-walpending-sqlite" {
        // The main file is that of the database before the changes.
        copy(&directory().join("amazonlinux-2023-sqlite"), &database);
    }
    root
}

/// What `rpm -qa` listed for it, without keys.
pub fn expected(name: &str) -> String {
    let list = fs::read(directory().join(name).join("packages.tsv")).unwrap();
    super::rpm_root::sorted(&list)
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "xz") {
            unpack_file(&path, &to.join(path.file_stem().unwrap()));
        }
    }
}

/// Unpacks what `xz` packed.
pub fn unpack_file(packed: &Path, target: &Path) {
    let mut packed = BufReader::new(fs::File::open(packed).unwrap());
    let mut out = BufWriter::new(fs::File::create(target).unwrap());
    lzma_rs::xz_decompress(&mut packed, &mut out).unwrap();
    out.flush().unwrap();
}
