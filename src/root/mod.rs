//! Paths below a root, resolved as the system that lives there would resolve them.
//!
//! In a mounted image an absolute symbolic link means a file of the image, not of the machine that
//! looks at it; the operating system would follow it out of the image. Everything that is read or
//! watched below a root goes through here, so that two parts of the program never look at different
//! files under one name, and none of them leaves the root.
//!
//! What is opened is a regular file: a FIFO would wait for a writer, and a device has no end.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{DirEntry, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed on the way to one file, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Longest text file that is read, in bytes.
const LONGEST_TEXT: u64 = 64 * 1024;

/// The way to a file: what was looked at, and where it ended.
#[derive(Debug)]
pub struct Trace {
    /// Every directory in which a name was looked up, by its real path, with that name; in order.
    pub steps: Vec<(PathBuf, OsString)>,
    /// Directories in which links stood that were followed.
    pub links_in: Vec<PathBuf>,
    /// Names that were not looked up, because the way ended before.
    pub left: Vec<OsString>,
    /// The real path, or why there is none.
    pub end: io::Result<PathBuf>,
}

/// Follows `relative` below `root`; neither `..` nor a link leads out of it.
pub fn trace(root: &Path, relative: &Path) -> Trace {
    let mut trace = Trace {
        steps: Vec::new(),
        links_in: Vec::new(),
        left: Vec::new(),
        end: Ok(PathBuf::new()),
    };
    let mut todo: VecDeque<OsString> = parts(relative).collect();
    trace.end = follow(root, &mut todo, &mut trace);
    trace.left = todo.into();
    trace
}

/// The real path of `relative` below `root`; neither `..` nor a link leads out of it.
///
/// # Errors
/// A part does not exist, may not be read, or links go in circles (`ELOOP`).
pub fn resolve(root: &Path, relative: &Path) -> io::Result<PathBuf> {
    trace(root, relative).end
}

/// The real path of `name` beside or in the real path `at`, which is one below `root`.
///
/// # Errors
/// See [`resolve`].
pub fn resolve_real(root: &Path, real: &Path) -> io::Result<PathBuf> {
    resolve(root, real.strip_prefix(root).unwrap_or(real))
}

fn follow(root: &Path, todo: &mut VecDeque<OsString>, trace: &mut Trace) -> io::Result<PathBuf> {
    let mut real = root.to_owned();
    let mut depth = 0usize;
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            if depth > 0 {
                real.pop();
                depth -= 1;
            }
            continue;
        }
        trace.steps.push((real.clone(), part.clone()));
        real.push(&part);
        depth += 1;
        if !real.symlink_metadata()?.is_symlink() {
            continue;
        }
        if trace.links_in.len() == MAX_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let target = real.read_link()?;
        real.pop();
        depth -= 1;
        trace.links_in.push(real.clone());
        if target.is_absolute() {
            (real, depth) = (root.to_owned(), 0);
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            todo.push_front(part);
        }
    }
    Ok(real)
}

/// Whether there is nothing under that name: a part of the way is missing, or is no directory.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether links go in circles.
pub fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ELOOP as i32)
}

/// Opens a regular file by its real path, for reading. Never waits and creates nothing.
///
/// # Errors
/// It is missing, may not be read, or is no regular file.
pub fn open_real(path: &Path) -> io::Result<File> {
    open(path, OFlag::O_NOFOLLOW)
}

/// The same for a path of the machine that this program runs on, which may be a link.
///
/// # Errors
/// See [`open_real`].
pub fn open_regular(path: &Path) -> io::Result<File> {
    open(path, OFlag::empty())
}

fn open(path: &Path, more: OFlag) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | more;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            // A socket, or a device without a driver.
            Some(code) if code == Errno::ENXIO as i32 => not_regular(),
            _ => error,
        })?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(not_regular()),
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "is no regular file")
}

/// Reads a text file below `root`, of at most 64 KiB. Bytes that are not UTF-8 are replaced.
///
/// # Errors
/// It is missing ([`is_absent`]), may not be read, is no regular file, or is longer.
pub fn read_text(root: &Path, relative: &str) -> io::Result<String> {
    let file = open_real(&resolve(root, Path::new(relative))?)?;
    let mut bytes = Vec::new();
    file.take(LONGEST_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST_TEXT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "is longer than 64 KiB",
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names in a directory below `root`, sorted; `None` when it cannot be listed. Bytes that are not UTF-8
/// are replaced.
pub fn list(root: &Path, relative: &Path) -> Option<Vec<String>> {
    list_some(root, relative, |_| true)
}

/// Names of the directories in a directory below `root`; `None` when it cannot be listed.
pub fn list_directories(root: &Path, relative: &Path) -> Option<Vec<String>> {
    list_some(root, relative, |entry| {
        entry.file_type().is_ok_and(|kind| kind.is_dir())
    })
}

fn list_some(
    root: &Path,
    relative: &Path,
    wanted: impl Fn(&DirEntry) -> bool,
) -> Option<Vec<String>> {
    let path = resolve(root, relative).ok()?;
    let mut names: Vec<String> = std::fs::read_dir(path)
        .ok()?
        .flatten()
        .filter(wanted)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Some(names)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_absolute_link_in_an_image_stays_in_the_image() {
        let image = tempfile::tempdir().unwrap();
        let root = image.path();
        std::fs::create_dir_all(root.join("usr/lib/sysimage/rpm")).unwrap();
        std::fs::create_dir_all(root.join("var/lib")).unwrap();
        symlink("/usr/lib/sysimage/rpm", root.join("var/lib/rpm")).unwrap();
        symlink("../../../../../../../usr", root.join("var/up")).unwrap();
        let real = root.join("usr/lib/sysimage/rpm");
        assert_eq!(resolve(root, Path::new("var/lib/rpm")).unwrap(), real);
        assert_eq!(
            resolve(root, Path::new("/var/up/lib/sysimage/rpm")).unwrap(),
            real
        );
    }

    #[test]
    fn links_in_a_circle_are_an_error_and_not_a_hang() {
        let image = tempfile::tempdir().unwrap();
        symlink("b", image.path().join("a")).unwrap();
        symlink("a", image.path().join("b")).unwrap();
        let error = resolve(image.path(), Path::new("a")).unwrap_err();
        assert!(is_loop(&error) && !is_absent(&error));
    }

    #[test]
    fn a_trace_tells_where_links_stand_and_what_is_missing() {
        let image = tempfile::tempdir().unwrap();
        let root = image.path();
        std::fs::create_dir_all(root.join("var/lib")).unwrap();
        std::fs::create_dir(root.join("data")).unwrap();
        symlink("/data/new/rpm", root.join("var/lib/rpm")).unwrap();
        let trace = trace(root, Path::new("var/lib/rpm"));
        assert_eq!(trace.links_in, [root.join("var/lib")]);
        assert_eq!(
            trace.steps.last(),
            Some(&(root.join("data"), OsString::from("new")))
        );
        assert_eq!(trace.left, ["rpm"]);
        assert!(is_absent(&trace.end.unwrap_err()));
    }

    // The loss: an agent that waits for a writer for ever, or reads a device until memory ends.
    #[test]
    fn only_regular_files_of_a_bounded_length_are_read() {
        let image = tempfile::tempdir().unwrap();
        let root = image.path();
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        std::fs::create_dir(root.join("directory")).unwrap();
        std::fs::write(root.join("long"), vec![b'x'; 64 * 1024 + 1]).unwrap();
        std::fs::write(root.join("file"), vec![b'x'; 64 * 1024]).unwrap();
        for name in ["fifo", "socket", "directory", "long"] {
            let error = read_text(root, name).unwrap_err();
            assert!(!is_absent(&error), "{name}: {error}");
        }
        assert_eq!(read_text(root, "file").unwrap().len(), 64 * 1024);
        for device in ["dev/null", "dev/zero"] {
            assert!(read_text(Path::new("/"), device).is_err());
        }
    }
}
