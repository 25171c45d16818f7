//! Where the data of a command goes: standard output, or a file that is replaced once all is there.

use super::{DONE, FAILED, complain, print_data, print_with};
use crate::visible::visible_bytes;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where the data of a command goes.
pub(super) struct Output<'a>(Option<&'a Path>);

impl<'a> Output<'a> {
    /// To this file; to standard output without one.
    pub(super) fn new(file: Option<&'a Path>) -> Self {
        Self(file)
    }

    /// Lets `write` write lines for people, with what is not seen as escapes; gives the exit code.
    pub(super) fn lines(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> u8 {
        match self.0 {
            None => print_with(write),
            Some(file) => to_file(file, write, |bytes| visible_bytes(&bytes).into_bytes()),
        }
    }

    /// Lets `write` write data for programs, byte for byte; gives the exit code.
    pub(super) fn data(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> u8 {
        match self.0 {
            None => print_data(write),
            Some(file) => to_file(file, write, |bytes| bytes),
        }
    }
}

fn to_file(
    file: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    shown: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> u8 {
    let mut bytes = Vec::new();
    let written = write(&mut bytes).and_then(|()| replace(file, &shown(bytes)));
    match written {
        Ok(()) => DONE,
        Err(error) => complain(
            FAILED,
            &format!("{}: cannot be written: {error}", file.display()),
        ),
    }
}

/// Puts a file of these bytes in the place of `file`: a reader sees the old one or the new one, whole. A
/// device or a FIFO is written to; where `file` is a link, what it points at is replaced.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = match fs::canonicalize(file) {
        Ok(target) if !target.is_file() => {
            return File::options().write(true).open(target)?.write_all(bytes);
        }
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        Err(error) => return Err(error),
    };
    let beside = beside(&target)?;
    let written = write_new(&beside, &target, bytes).and_then(|()| fs::rename(&beside, &target));
    if written.is_err() {
        // It is ours, and incomplete.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A name in the same directory that nobody else uses.
fn beside(target: &Path) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.new", std::process::id()));
    Ok(target.with_file_name(hidden))
}

fn write_new(path: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = File::options().write(true).create_new(true).open(path)?;
    if let Ok(old) = fs::metadata(target) {
        new.set_permissions(old.permissions())?;
    }
    new.write_all(bytes)?;
    new.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bom.json");
        replace(&file, b"first").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("link");
        symlink("bom.json", &link).unwrap();
        replace(&link, b"second").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"second");
        assert!(link.is_symlink());
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bom.json");
        fs::write(&file, "old").unwrap();
        let failing = |_: &mut dyn Write| Err(io::Error::other("no"));
        assert_eq!(Output::new(Some(&file)).data(failing), FAILED);
        assert_eq!(fs::read(&file).unwrap(), b"old");
        let nowhere = dir.path().join("absent/bom.json");
        assert_eq!(
            Output::new(Some(&nowhere)).data(|out| out.write_all(b"x")),
            FAILED
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_is_written_to() {
        replace(Path::new("/dev/null"), b"x").unwrap();
        assert!(!Path::new("/dev/null").is_file());
    }
}
