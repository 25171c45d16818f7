//! What a sink has written, in a file of its own: it removes that alone, and nothing that has the same name.
//!
//! ```text
//! VM SERIAL NUMBER       a line for each document, noted before it is written
//! ```
//!
//! Of a guest the last two count: the second of them may not have been written when the sensor was killed. The
//! file is not synced. What is lost of it with the power makes a document stay that could have been removed.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// From this length on the file is shortened, in bytes. What counts of ten thousand guests is a twentieth of it.
const LONG: u64 = 32 << 20;

/// Stands for a serial number where nothing of a guest is there any more.
const NOTHING: &str = "-";

/// The serial numbers of what was written of each guest, by guest: the last two.
pub(super) type Serials = HashMap<String, [String; 2]>;

/// The file.
pub(super) struct Written {
    path: PathBuf,
    lock: Mutex<()>,
}

impl Written {
    /// A file that need not be there yet.
    pub(super) fn at(path: PathBuf) -> Self {
        let lock = Mutex::new(());
        Self { path, lock }
    }

    /// Notes what will be written.
    pub(super) fn note(&self, vm: &str, serial: &str) -> io::Result<()> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        if file.metadata()?.len() > LONG {
            self.shorten()?;
            file = options.open(&self.path)?;
        }
        // A line that was cut short is ended, and stands for nothing.
        file.write_all(format!("\n{vm} {serial}").as_bytes())
    }

    /// Notes that what was written is there no more.
    pub(super) fn note_removed(&self, vm: &str) -> io::Result<()> {
        self.note(vm, NOTHING)
    }

    /// All that was noted.
    pub(super) fn serials(&self) -> io::Result<Serials> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.read()
    }

    fn read(&self) -> io::Result<Serials> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let mut serials = Serials::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((vm, serial)) = line.split_once(' ') else {
                continue;
            };
            let [before, last] = serials.remove(vm).unwrap_or_default();
            // What is tried again is noted again.
            let before = if last == serial { before } else { last };
            if serial != NOTHING {
                serials.insert(vm.to_owned(), [before, serial.to_owned()]);
            }
        }
        Ok(serials)
    }

    /// Leaves out what does not count any more.
    fn shorten(&self) -> io::Result<()> {
        let shorter = self.path.with_extension("new");
        let mut text = String::new();
        for (vm, serials) in self.read()? {
            for serial in serials.iter().filter(|serial| !serial.is_empty()) {
                text.push_str(&format!("\n{vm} {serial}"));
            }
        }
        fs::write(&shorter, text)?;
        fs::rename(&shorter, &self.path)
    }
}

/// The serial number of a document: it stands near its beginning.
pub(super) fn serial_of(document: &[u8]) -> Option<&str> {
    const BEFORE: &[u8] = b"\"serialNumber\":\"";
    let head = document.get(..document.len().min(256))?;
    let at = head.windows(BEFORE.len()).position(|it| it == BEFORE)?;
    let rest = head.get(at + BEFORE.len()..)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

/// The same of a file; `None` also where it is no file.
pub(super) fn serial_in(path: &Path) -> io::Result<Option<String>> {
    use std::io::Read;
    let meta = fs::symlink_metadata(path);
    match &meta {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(meta) if !meta.is_file() => return Ok(None),
        _ => meta?,
    };
    let mut head = Vec::new();
    fs::File::open(path)?.take(256).read_to_end(&mut head)?;
    Ok(serial_of(&head).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_of_a_guest_count_also_after_a_line_that_was_cut_and_once_it_is_shortened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sink.written");
        let written = Written::at(path.clone());
        assert!(written.serials().unwrap().is_empty());
        for serial in ["a", "b", "c", "c"] {
            written.note("web-1", serial).unwrap();
        }
        let cut = fs::read_to_string(&path).unwrap() + "\nweb-";
        fs::write(&path, cut).unwrap();
        let written = Written::at(path.clone());
        written.note("web-2", "d").unwrap();
        let expected = |web_1: [&str; 2], web_2: [&str; 2]| {
            let serials = [("web-1", web_1), ("web-2", web_2)];
            let owned = serials.map(|(vm, it)| (vm.to_owned(), it.map(str::to_owned)));
            Serials::from(owned)
        };
        assert_eq!(written.serials().unwrap(), expected(["b", "c"], ["", "d"]));
        let long = fs::read_to_string(&path).unwrap() + &"\nx".repeat(17 << 20);
        fs::write(&path, long).unwrap();
        written.note("web-2", "e").unwrap();
        assert_eq!(written.serials().unwrap(), expected(["b", "c"], ["d", "e"]));
        assert!(fs::metadata(&path).unwrap().len() < 100);
        written.note_removed("web-1").unwrap();
        assert!(!written.serials().unwrap().contains_key("web-1"));
    }

    #[test]
    fn a_serial_number_is_found_at_the_beginning_alone() {
        let document = b"{\"bomFormat\":\"CycloneDX\",\"serialNumber\":\"urn:uuid:1\",\"x\":1}";
        assert_eq!(serial_of(document), Some("urn:uuid:1"));
        let late = [" ".repeat(300).as_bytes(), document].concat();
        for none in [&late[..], b"", b"{}", b"\"serialNumber\":\"urn"] {
            assert_eq!(serial_of(none), None);
        }
    }
}
