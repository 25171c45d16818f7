//! `file:PATH`: one line of JSON per document.
//!
//! - A report that was accepted before is a short line: the file has it already.
//! - A line is on disk (fsync) before it counts as accepted; those that come together share one.
//! - A line that a crash cut short is ended when the file is opened, so that it is never merged
//!   with the next one. A reader skips it: its report was not accepted, and follows again whole.
//! - A write that fails part-way is taken back, for the same reason.

use super::outcome::Outcome;
use super::sink::{Delivery, Sink};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Appends to a file from one thread, which ends with the sink.
pub(super) struct FileSink {
    lines: Sender<Line>,
}

struct Line {
    bytes: Vec<u8>,
    written: SyncSender<Result<(), String>>,
}

impl FileSink {
    /// Opens the file, or begins it, readable by its owner only.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut writer = Writer {
            path: path.to_owned(),
            file: None,
        };
        writer.reopen()?;
        // At most as many lines wait here as deliveries are in flight.
        let (lines, inbox) = channel();
        thread::Builder::new()
            .name("file-sink".into())
            .spawn(move || writer.run(&inbox))?;
        Ok(Self { lines })
    }
}

impl Sink for FileSink {
    fn shortens_unchanged(&self) -> bool {
        true
    }

    fn deliver(&self, delivery: &Delivery) -> Outcome {
        let (written, answer) = sync_channel(1);
        let mut bytes = Vec::with_capacity(delivery.body.len() + 1);
        bytes.extend_from_slice(&delivery.body);
        bytes.push(b'\n');
        let sent = self.lines.send(Line { bytes, written });
        match sent
            .map_err(drop)
            .and_then(|()| answer.recv().map_err(drop))
        {
            Ok(Ok(())) => Outcome::Accepted,
            Ok(Err(error)) => Outcome::Unreachable(error),
            Err(()) => Outcome::Unreachable("the file's writer is gone".into()),
        }
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<Line>) {
        while let Ok(first) = inbox.recv() {
            let batch: Vec<Line> = std::iter::once(first).chain(inbox.try_iter()).collect();
            let result = self
                .append(&batch)
                .map_err(|error| format!("{}: {error}", self.path.display()));
            for line in batch {
                let _ = line.written.send(result.clone());
            }
        }
    }

    fn append(&mut self, batch: &[Line]) -> io::Result<()> {
        let moved = self.file.as_ref().is_none_or(|file| self.was_moved(file));
        if moved {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("not open"));
        };
        let before = file.metadata()?.len();
        let bytes: Vec<u8> = batch
            .iter()
            .flat_map(|line| line.bytes.iter().copied())
            .collect();
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        if written.is_err() {
            // What cannot be taken back now is ended when the file is opened again.
            let _ = file.set_len(before);
            self.file = None;
        }
        written
    }

    /// Whether the path leads to another file by now, as after a log rotation.
    fn was_moved(&self, file: &File) -> bool {
        match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()),
            _ => true,
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        let is_new = !self.path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        if !file.metadata()?.file_type().is_fifo_or_device() {
            end_last_line(&mut file)?;
        }
        if is_new {
            // The name of a new file is durable only with its directory.
            let directory = self.path.parent().filter(|d| !d.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        self.file = Some(file);
        Ok(())
    }
}

trait FileTypeExt {
    fn is_fifo_or_device(&self) -> bool;
}

impl FileTypeExt for std::fs::FileType {
    fn is_fifo_or_device(&self) -> bool {
        !self.is_file()
    }
}

/// Ends a line that was cut short.
fn end_last_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        tracing::warn!("the file ends in the middle of a line, which was not accepted: ending it");
        file.write_all(b"\n")?;
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::deliver::sink::Kind;
    use std::fs;

    #[test]
    fn a_line_cut_short_by_a_crash_is_not_merged_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.ndjson");
        fs::write(&path, "{\"whole\":1}\n{\"cut").unwrap();
        let sink = FileSink::open(&path).unwrap();
        assert_eq!(sink.deliver(&delivery("{\"next\":1}")), Outcome::Accepted);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"whole\":1}\n{\"cut\n{\"next\":1}\n");
    }

    #[test]
    fn a_rotated_file_is_left_behind_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("out"), dir.path().join("out.1"));
        let sink = FileSink::open(&path).unwrap();
        sink.deliver(&delivery("1"));
        fs::rename(&path, &old).unwrap();
        sink.deliver(&delivery("2"));
        assert_eq!(fs::read_to_string(&old).unwrap(), "1\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn lines_that_come_together_are_all_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let sink = FileSink::open(&path).unwrap();
        thread::scope(|scope| {
            for n in 0..8 {
                let sink = &sink;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let line = n.to_string().repeat(5000);
                        assert_eq!(sink.deliver(&delivery(&line)), Outcome::Accepted);
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 160);
        assert!(
            text.lines()
                .all(|l| l.len() == 5000 && l.bytes().all(|b| b == l.as_bytes()[0]))
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_is_central_out_of_reach() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("out");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let sink = FileSink::open(&path).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert!(matches!(
            sink.deliver(&delivery("1")),
            Outcome::Unreachable(_)
        ));
        fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(sink.deliver(&delivery("2")), Outcome::Accepted);
    }

    fn delivery(body: &str) -> Delivery {
        Delivery {
            kind: Kind::Report,
            idempotency_key: "a/1/1/0011223344556677".into(),
            message_id: String::new(),
            vm: "a".into(),
            body: body.as_bytes().to_vec(),
        }
    }
}
