//! Paths below a root, resolved as the system that lives there would resolve them.
//!
//! In a mounted image an absolute symbolic link means a file of the image, not of the machine that
//! looks at it; the operating system would follow it out of the image.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed on the way to one file, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// The real path of `relative` below `root`; neither `..` nor a link leads out of it.
///
/// # Errors
/// A part does not exist, may not be read, or links go in circles.
pub(super) fn resolve(root: &Path, relative: &Path) -> io::Result<PathBuf> {
    let mut real = root.to_owned();
    let mut depth = 0usize;
    let mut links = 0;
    let mut todo: VecDeque<OsString> = parts(relative).collect();
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            if depth > 0 {
                real.pop();
                depth -= 1;
            }
            continue;
        }
        real.push(&part);
        depth += 1;
        if !real.symlink_metadata()?.is_symlink() {
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "symbolic links go in circles",
            ));
        }
        let target = real.read_link()?;
        if target.is_absolute() {
            (real, depth) = (root.to_owned(), 0);
        } else {
            real.pop();
            depth -= 1;
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            todo.push_front(part);
        }
    }
    Ok(real)
}

/// Reads a small text file below `root`; `None` when it is missing, unreadable or too large.
pub(super) fn read_text(root: &Path, relative: &str) -> Option<String> {
    const MOST: u64 = 64 * 1024;
    let path = resolve(root, Path::new(relative)).ok()?;
    let file = super::file::OpenFile::open(&path).ok()?;
    let bytes = file.read_whole(MOST).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names in a directory below `root`; `None` when it cannot be listed.
pub(super) fn list(root: &Path, relative: &str) -> Option<Vec<String>> {
    list_some(root, relative, |_| true)
}

/// Names of the directories in a directory below `root`; `None` when it cannot be listed.
pub(super) fn list_directories(root: &Path, relative: &str) -> Option<Vec<String>> {
    list_some(root, relative, |entry| {
        entry.file_type().is_ok_and(|kind| kind.is_dir())
    })
}

fn list_some(
    root: &Path,
    relative: &str,
    wanted: impl Fn(&DirEntry) -> bool,
) -> Option<Vec<String>> {
    let path = resolve(root, Path::new(relative)).ok()?;
    let mut names: Vec<String> = std::fs::read_dir(path)
        .ok()?
        .flatten()
        .filter(wanted)
        .filter_map(|entry| entry.file_name().into_string().ok())
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
        assert!(resolve(image.path(), Path::new("a")).is_err());
    }
}
