//! `sbom:DIR`: a file `DIR/<vm id>.cdx.json` for each guest, its newest bill of materials (CycloneDX 1.6).
//!
//! - A file is replaced whole, and is on disk before the report counts as accepted: a reader never sees a half.
//! - One whose content is there already stays as it is, whatever its time and number: a refresh writes nothing.
//! - Facts alone are in no bill of materials; they count as accepted.
//! - A directory that is full, read-only or away is an outage: reports wait.
//! - Files of guests that left stay, or are removed where this sink wrote them: see [`Written`].

use super::written::{Written, serial_in, serial_of};
use super::{BlockingSink, Delivery, DepartedFiles, DocumentForm, DocumentKind};
use crate::report::VmId;
use crate::sense::deliver::outcome::Outcome;
use crate::sense::roster::KnownGuests;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// How the name of a file ends, and that of one which is being written.
const FINISHED: &str = ".cdx.json";
const UNFINISHED: &str = ".cdx.json.new";

/// A directory of bills of materials.
pub(crate) struct SbomSink {
    directory: PathBuf,
    written: Option<Written>,
    departed: DepartedFiles,
}

impl SbomSink {
    /// With a directory that is there. What was not finished in it when a sensor was killed is removed, where
    /// that is possible.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            written: None,
            departed: DepartedFiles::Keep,
        })
    }

    /// Remembers beside `memory` what it wrote, whether that is to be removed one day or not.
    pub(super) fn with_memory(self, memory: Option<&Path>, departed: DepartedFiles) -> Self {
        Self {
            written: memory.map(|path| Written::at(path.with_extension("written"))),
            departed,
            ..self
        }
    }

    /// Stores the document of a guest, whose id is one as [`VmId`] allows it.
    pub(crate) fn store(&self, vm: &str, document: &[u8]) -> io::Result<()> {
        // Ids of guests have no character that means something in a path.
        let path = self.directory.join(format!("{vm}{FINISHED}"));
        if is_there(&path, document)? {
            return Ok(());
        }
        if let (Some(written), Some(serial)) = (&self.written, serial_of(document))
            && let Err(error) = written.note(vm, serial)
        {
            tracing::warn!(vm, %error, "not remembered: its file stays when the guest leaves");
        }
        let unfinished = self.directory.join(format!(".{vm}{UNFINISHED}"));
        let _ = fs::remove_file(&unfinished);
        write_new(&unfinished, document)
            .and_then(|()| fs::rename(&unfinished, &path))
            // It would hold room on a disk that may have none.
            .inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
        File::open(&self.directory)?.sync_all()
    }

    /// Removes a file if it is one that this sink wrote, and its guest is gone.
    fn remove(
        &self,
        vm: &VmId,
        serials: &[String; 2],
        roster: &watch::Receiver<KnownGuests>,
    ) -> io::Result<()> {
        let path = self.directory.join(format!("{vm}{FINISHED}"));
        let serial = serial_in(&path)?;
        if !serial.is_some_and(|serial| serials.contains(&serial)) {
            return Ok(());
        }
        // Held meanwhile: a guest that comes back is pulled after that, and its file is a new one.
        let known = roster.borrow();
        if is_gone(vm, &known) {
            fs::remove_file(path)?;
            // Without the note it is looked at once more.
            let _ = self.written.as_ref().map(|it| it.note_removed(vm.as_str()));
            tracing::info!(%vm, "left: its bill of materials is removed");
        }
        Ok(())
    }
}

fn is_gone(vm: &VmId, known: &KnownGuests) -> bool {
    known.is_complete && !known.guests.contains_key(vm)
}

impl BlockingSink for SbomSink {
    fn deliver(&self, delivery: &Delivery) -> Outcome {
        if delivery.kind == DocumentKind::Facts {
            return Outcome::Accepted;
        }
        match self.store(&delivery.vm, &delivery.body) {
            Ok(()) => Outcome::Accepted,
            Err(error) => Outcome::Unreachable(format!("{}: {error}", self.directory.display())),
        }
    }

    fn form(&self) -> DocumentForm {
        DocumentForm::CycloneDx
    }

    fn remove_departed(&self, roster: &watch::Receiver<KnownGuests>) -> io::Result<()> {
        let Some(written) = &self.written else {
            return Ok(());
        };
        if self.departed == DepartedFiles::Keep {
            return Ok(());
        }
        let mut gone = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let vm = name.to_str().and_then(|name| name.strip_suffix(FINISHED));
            let vm = vm.and_then(|vm| vm.parse::<VmId>().ok());
            gone.extend(vm.filter(|vm| is_gone(vm, &roster.borrow())));
        }
        if gone.is_empty() {
            return Ok(());
        }
        let written = written.serials()?;
        let gone = gone.iter();
        let ours = gone.filter_map(|vm| Some((vm, written.get(vm.as_str())?)));
        // One that cannot be removed keeps no other.
        let removed = ours.map(|(vm, serials)| self.remove(vm, serials, roster));
        removed.fold(Ok(()), Result::and)
    }
}

/// Writes a file that is not there, to the disk. Nobody's link is followed.
fn write_new(path: &Path, document: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)?;
    file.write_all(document)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Whether the file has this content already. Number and time are always equally long, so that one of another
/// length, however long, is not read.
fn is_there(path: &Path, document: &[u8]) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() != document.len() as u64 + 1 => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        meta => meta?,
    };
    let held = fs::read(path)?;
    let held = held.strip_suffix(b"\n").unwrap_or_default();
    Ok(content(held).is_some_and(|held| content(document) == Some(held)))
}

/// All of a document behind its number and its time.
fn content(document: &[u8]) -> Option<&[u8]> {
    const AFTER: &[u8] = b"\"tools\":";
    let at = document.windows(AFTER.len()).position(|it| it == AFTER)?;
    document.get(at..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::small_disk::SmallDisk;
    use std::os::unix::fs::MetadataExt;

    fn report(vm: &str, time: &str, content: &str) -> Delivery {
        let head = format!("{{\"serialNumber\":\"{time}\",\"metadata\":{{\"timestamp\":\"{time}\"");
        Delivery {
            kind: DocumentKind::Report,
            idempotency_key: String::new(),
            message_id: String::new(),
            vm: vm.to_owned(),
            os: String::new(),
            accepted_at: None,
            body: format!("{head},\"tools\":{{}}}},\"components\":[\"{content}\"]}}").into_bytes(),
            events: Vec::new(),
        }
    }

    /// Loss prevented: 42 GB a day for ten thousand guests of which nothing changed.
    #[test]
    fn a_file_is_written_only_when_its_content_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let sink = SbomSink::open(dir.path()).unwrap();
        let path = dir.path().join("web-1.cdx.json");
        let inode = || fs::metadata(&path).unwrap().ino();
        let first = report("web-1", "10:00", "bash");
        assert_eq!(sink.deliver(&first), Outcome::Accepted);
        let (written, before) = (fs::read(&path).unwrap(), inode());
        assert_eq!(written, [&first.body[..], b"\n"].concat());
        let again = report("web-1", "14:00", "bash");
        assert_eq!(sink.deliver(&again), Outcome::Accepted);
        assert_eq!((fs::read(&path).unwrap(), inode()), (written, before));
        for other in [report("web-1", "15:00", "vim"), first] {
            assert_eq!(sink.deliver(&other), Outcome::Accepted);
            assert_eq!(fs::read(&path).unwrap(), [&other.body[..], b"\n"].concat());
        }
        // What somebody cut short or emptied is written again.
        for spoilt in ["", "{", "\n", "\"tools\":"] {
            fs::write(&path, spoilt).unwrap();
            assert_eq!(sink.deliver(&again), Outcome::Accepted);
            assert_eq!(fs::read(&path).unwrap(), [&again.body[..], b"\n"].concat());
        }
        let facts = Delivery {
            kind: DocumentKind::Facts,
            ..report("web-2", "10:00", "")
        };
        assert_eq!(sink.deliver(&facts), Outcome::Accepted);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Loss prevented: reports given up because of a disk, and a half file that keeps it full.
    #[test]
    fn a_full_disk_is_an_outage_that_leaves_the_old_file_and_nothing_else() {
        let Some(disk) = SmallDisk::mount("64k") else {
            return;
        };
        let sink = SbomSink::open(disk.path()).unwrap();
        let first = report("web-1", "10:00", "bash");
        assert_eq!(sink.deliver(&first), Outcome::Accepted);
        let long = report("web-1", "11:00", &"x".repeat(100_000));
        let outcome = sink.deliver(&long);
        let names = fs::read_dir(disk.path()).unwrap();
        let names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
        let held = fs::read(disk.path().join("web-1.cdx.json")).unwrap();
        assert!(matches!(outcome, Outcome::Unreachable(_)), "{outcome:?}");
        assert_eq!(names, ["web-1.cdx.json"]);
        assert_eq!(held, [&first.body[..], b"\n"].concat());
    }

    #[test]
    fn what_was_not_finished_is_gone_after_a_start_and_a_directory_that_is_away_is_an_outage() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("sboms");
        assert!(SbomSink::open(&place).is_err());
        fs::create_dir(&place).unwrap();
        fs::write(place.join(".web-1.cdx.json.new"), "half").unwrap();
        fs::write(place.join("web-2.cdx.json"), "whole").unwrap();
        let sink = SbomSink::open(&place).unwrap();
        let names = fs::read_dir(&place).unwrap();
        let names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["web-2.cdx.json"]);
        // A link that somebody left where the next unfinished file will be is not followed.
        std::os::unix::fs::symlink("../victim", place.join(".web-3.cdx.json.new")).unwrap();
        let placed = sink.deliver(&report("web-3", "10:00", "bash"));
        assert_eq!(placed, Outcome::Accepted);
        assert!(!dir.path().join("victim").exists());
        fs::remove_dir_all(&place).unwrap();
        let outcome = sink.deliver(&report("web-1", "10:00", "bash"));
        assert!(matches!(outcome, Outcome::Unreachable(said) if said.contains("sboms")));
    }
}
