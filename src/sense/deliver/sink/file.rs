//! `file:PATH`: one line of JSON per document.
//!
//! - A report that was accepted before is a short line: the file has it already.
//! - With `events=on` a line for each event follows the line of the document.
//! - A line is on disk (fsync) before it counts as accepted; those that come together share one.
//! - A line that a crash cut short is ended when the file is opened, so that it is never merged
//!   with the next one. A reader skips it: its report was not accepted, and follows again whole.
//! - A write that fails part-way is taken back, for the same reason.
//! - What is no regular file (a pipe, a FIFO, a terminal, a device) is not synced and cannot be taken
//!   back: a line counts as accepted when the system has taken all of it. A reader that takes nothing
//!   for [`READER`] is treated as absent, and a line that was cut short there is ended first.

use super::{BlockingSink, Delivery};
use crate::clock::{self, WallTime};
use crate::sense::deliver::outcome::Outcome;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// Longest time that a pipe, FIFO or terminal may be full before a write to it fails.
const READER: Duration = Duration::from_secs(30);

/// Appends to a file from one thread, which ends with the sink.
pub(super) struct FileSink {
    lines: Sender<Line>,
    events_since: Option<WallTime>,
}

struct Line {
    bytes: Vec<u8>,
    written: SyncSender<Result<(), String>>,
}

impl FileSink {
    /// Opens the file, or begins it, readable by its owner only. It has events since a time, or none.
    pub(super) fn open(path: &Path, events_since: Option<WallTime>) -> io::Result<Self> {
        let mut writer = Writer {
            path: path.to_owned(),
            file: None,
            is_cut: false,
        };
        match writer.reopen() {
            // A FIFO that nobody reads yet: deliveries wait for a reader.
            Err(error) if is_without_reader(path, &error) => {}
            opened => opened?,
        }
        // At most as many lines wait here as deliveries are in flight.
        let (lines, inbox) = channel();
        thread::Builder::new()
            .name("file-sink".into())
            .spawn(move || writer.run(&inbox))?;
        Ok(Self {
            lines,
            events_since,
        })
    }
}

impl BlockingSink for FileSink {
    fn shortens_unchanged(&self) -> bool {
        true
    }

    fn events_since(&self) -> Option<WallTime> {
        self.events_since
    }

    fn deliver(&self, delivery: &Delivery) -> Outcome {
        let (written, answer) = sync_channel(1);
        let mut bytes = Vec::with_capacity(delivery.body.len() + 1);
        let events = delivery.events.iter().map(|event| &event.body);
        for line in std::iter::once(&delivery.body).chain(events) {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
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
    /// The last line written to what cannot be taken back is not whole.
    is_cut: bool,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<Line>) {
        while let Ok(first) = inbox.recv() {
            let batch: Vec<Line> = std::iter::once(first).chain(inbox.try_iter()).collect();
            let result = self.append(&batch).map_err(|error| {
                let what = match is_without_reader(&self.path, &error) {
                    true => "nobody reads this FIFO".to_owned(),
                    false => error.to_string(),
                };
                format!("{}: {what}", self.path.display())
            });
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
        let lines = batch.iter().flat_map(|line| line.bytes.iter().copied());
        let meta = file.metadata()?;
        if !meta.is_file() {
            let bytes: Vec<u8> = self
                .is_cut
                .then_some(b'\n')
                .into_iter()
                .chain(lines)
                .collect();
            let (taken, written) = write_while_read(file, &bytes);
            self.is_cut = match taken {
                0 => self.is_cut,
                taken => bytes.get(taken - 1) != Some(&b'\n'),
            };
            if written.is_err() {
                self.file = None;
            }
            return written;
        }
        let bytes: Vec<u8> = lines.collect();
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        if written.is_err() {
            // What cannot be taken back now is ended when the file is opened again.
            let _ = file.set_len(meta.len());
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
        let kind = std::fs::metadata(&self.path)
            .ok()
            .map(|meta| meta.file_type());
        let is_new = kind.is_none();
        let is_regular = kind.is_none_or(|kind| kind.is_file());
        if kind.is_some_and(|kind| kind.is_socket()) {
            self.file = Some(standard_socket(&self.path)?);
            return Ok(());
        }
        let mut options = OpenOptions::new();
        options.append(true).mode(0o600);
        match is_regular {
            true => options.read(true).create(true),
            // Opening a FIFO must not wait for its reader, nor be one.
            false => options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()),
        };
        let mut file = options.open(&self.path)?;
        if is_regular {
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

/// Whether `error` came of opening a FIFO that nobody reads.
fn is_without_reader(path: &Path, error: &io::Error) -> bool {
    let is_fifo = || std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    error.raw_os_error() == Some(Errno::ENXIO as i32) && is_fifo()
}

/// Standard output or error as a service manager connects it: a socket, which has no name to open.
fn standard_socket(path: &Path) -> io::Result<File> {
    let socket = match path.to_str() {
        Some("/dev/stdout" | "/proc/self/fd/1" | "/dev/fd/1") => {
            io::stdout().as_fd().try_clone_to_owned()?
        }
        Some("/dev/stderr" | "/proc/self/fd/2" | "/dev/fd/2") => {
            io::stderr().as_fd().try_clone_to_owned()?
        }
        _ => {
            return Err(io::Error::other(
                "is a socket, and lines cannot be appended to it",
            ));
        }
    };
    Ok(File::from(socket))
}

/// Writes to a pipe or device, as long as its other end takes something; gives how much was taken.
fn write_while_read(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    let mut until = clock::now() + READER;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => {
                taken += more;
                until = clock::now() + READER;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = until.saturating_duration_since(clock::now());
                if left.is_zero() {
                    let why = format!("its reader has taken nothing for {} s", READER.as_secs());
                    return (taken, Err(io::Error::new(io::ErrorKind::TimedOut, why)));
                }
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                // What it found shows with the next write.
                let _ = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], left);
            }
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
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
    use crate::sense::deliver::sink::{DocumentKind, Event};
    use std::fs;

    #[test]
    fn a_line_cut_short_by_a_crash_is_not_merged_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.ndjson");
        fs::write(&path, "{\"whole\":1}\n{\"cut").unwrap();
        let sink = FileSink::open(&path, None).unwrap();
        assert_eq!(sink.deliver(&delivery("{\"next\":1}")), Outcome::Accepted);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"whole\":1}\n{\"cut\n{\"next\":1}\n");
    }

    #[test]
    fn events_are_lines_behind_that_of_their_document() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let sink = FileSink::open(&path, Some(WallTime::default())).unwrap();
        let event = |id: &str| Event {
            id: id.into(),
            body: id.as_bytes().to_vec(),
        };
        let with_events = Delivery {
            events: vec![event("e1"), event("e2")],
            ..delivery("d")
        };
        assert_eq!(sink.deliver(&with_events), Outcome::Accepted);
        assert_eq!(fs::read_to_string(&path).unwrap(), "d\ne1\ne2\n");
    }

    #[test]
    fn a_rotated_file_is_left_behind_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("out"), dir.path().join("out.1"));
        let sink = FileSink::open(&path, None).unwrap();
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
        let sink = FileSink::open(&path, None).unwrap();
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
        let sink = FileSink::open(&path, None).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert!(matches!(
            sink.deliver(&delivery("1")),
            Outcome::Unreachable(_)
        ));
        fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(sink.deliver(&delivery("2")), Outcome::Accepted);
    }

    #[test]
    fn a_fifo_takes_each_line_once_and_waits_for_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let sink = FileSink::open(&path, None).unwrap();
        let Outcome::Unreachable(said) = sink.deliver(&delivery("early")) else {
            unreachable!("nobody reads yet")
        };
        assert!(said.ends_with("nobody reads this FIFO"), "{said}");
        let reader = |flags: OFlag| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(flags.bits());
            options.open(&path).unwrap()
        };
        let mut first = reader(OFlag::O_NONBLOCK);
        assert_eq!(sink.deliver(&delivery("1")), Outcome::Accepted);
        // Longer than the pipe: the rest follows as it is read.
        let long = "2".repeat(300_000);
        thread::scope(|scope| {
            let sent = scope.spawn(|| sink.deliver(&delivery(&long)));
            let mut expected = vec![0; "1\n".len() + long.len() + 1];
            let mut blocking = reader(OFlag::empty());
            blocking.read_exact(&mut expected).unwrap();
            assert!(expected.starts_with(b"1\n2") && expected.ends_with(b"2\n"));
            assert_eq!(sent.join().unwrap(), Outcome::Accepted);
        });
        // Everybody who read is gone: the next reader gets what comes then.
        assert_eq!(first.read(&mut [0]).unwrap_or(0), 0);
        drop(first);
        assert!(matches!(
            sink.deliver(&delivery("3")),
            Outcome::Unreachable(_)
        ));
        let mut second = reader(OFlag::O_NONBLOCK);
        assert_eq!(sink.deliver(&delivery("4")), Outcome::Accepted);
        let mut text = [0; 2];
        second.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"4\n");
    }

    #[test]
    fn a_line_cut_short_in_a_pipe_is_ended_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let mut writer_of = Writer {
            path: path.into(),
            file: None,
            is_cut: true,
        };
        let (written, _answer) = sync_channel(1);
        let line = Line {
            bytes: b"whole\n".to_vec(),
            written,
        };
        writer_of.append(&[line]).unwrap();
        drop((writer_of, writer));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nwhole\n");
    }

    #[test]
    fn a_device_takes_lines_and_one_that_is_full_refuses_them() {
        let null = FileSink::open(Path::new("/dev/null"), None).unwrap();
        assert_eq!(null.deliver(&delivery("1")), Outcome::Accepted);
        let full = FileSink::open(Path::new("/dev/full"), None).unwrap();
        assert!(matches!(
            full.deliver(&delivery("1")),
            Outcome::Unreachable(_)
        ));
    }

    fn delivery(body: &str) -> Delivery {
        Delivery {
            kind: DocumentKind::Report,
            idempotency_key: "a/1/1/0011223344556677".into(),
            message_id: String::new(),
            vm: "a".into(),
            os: String::new(),
            accepted_at: None,
            body: body.as_bytes().to_vec(),
            events: Vec::new(),
        }
    }
}
