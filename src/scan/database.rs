//! Where the package database is.

use super::error::ScanError;
use super::file::OpenFile;
use crate::report::escape::escape;
use crate::root::{self, is_absent, is_loop};
use crate::rpmdb::{Backend, ReadAt as _};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Where rpm keeps its database, newest habit first. ostree systems have the last one.
pub const PLACES: [&str; 3] = ["usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"];

/// A package database that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its directory, with links resolved below the root.
    pub directory: PathBuf,
    /// Its directory as a report names it: below the root, without a leading `/`, escaped where it is
    /// not UTF-8.
    pub relative: String,
    /// The file that holds the headers.
    pub main_file: PathBuf,
    /// Format of that file.
    pub backend: Backend,
}

impl Located {
    /// `sqlite:var/lib/rpm`: backend and directory, as reports name it.
    pub fn package_db(&self) -> String {
        format!("{}:{}", self.backend, self.relative)
    }
}

/// Finds the database below `root`: the first of [`PLACES`] that holds one, or `dbpath` (taken
/// below `root` as well) when given. Of several formats in one directory, the newest is in use.
/// A place that nobody can use, such as a loop of links, does not hide the next.
///
/// # Errors
/// [`ScanError::NoDatabase`] names every place that was looked at; [`ScanError::NoDirectory`] when
/// `dbpath` is a file; [`ScanError::Unreadable`] when a place may not be looked into, or when there is
/// no database but something in its place.
pub fn locate(root: &Path, dbpath: Option<&Path>) -> Result<Located, ScanError> {
    let mut looked = Looked::default();
    for place in places(dbpath) {
        if let Some(found) = look(root, place, &mut looked)? {
            return Ok(found);
        }
    }
    match (looked.unusable, dbpath) {
        (Some(ScanError::NoDirectory { .. }), None) | (None, _) => Err(ScanError::NoDatabase {
            looked: looked.absent,
        }),
        (Some(error), _) => Err(error),
    }
}

/// What was found in place of a database.
#[derive(Default)]
struct Looked {
    absent: Vec<PathBuf>,
    /// The first thing that is there and is none.
    unusable: Option<ScanError>,
}

/// A second database, in the same place or in another; `None` when there is none or it cannot be
/// told.
pub(super) fn another(root: &Path, dbpath: Option<&Path>, found: &Located) -> Option<PathBuf> {
    places(dbpath).into_iter().find_map(|place| {
        let files = Backend::ALL.map(|backend| place.join(backend.file_name()));
        files
            .iter()
            .filter_map(|file| root::resolve(root, file).ok())
            .find(|file| file.is_file() && *file != found.main_file)
    })
}

/// Whether a rebuild has moved a database directory aside and not yet put the new one in its place:
/// `rpmdb --rebuilddb` renames `rpm` to `rpmold.PID`, and `rpmrebuilddb.PID` to `rpm`.
pub(super) fn moved_away(root: &Path, dbpath: Option<&Path>) -> bool {
    let aside = |place: &Path| {
        let (parent, name) = (place.parent()?, place.file_name()?.to_string_lossy());
        let names = root::list(root, parent)?;
        let with = |suffix: &str| {
            let start = format!("{name}{suffix}.");
            names.iter().any(|name| name.starts_with(&start))
        };
        Some(!names.iter().any(|there| *there == name) && with("old") && with("rebuilddb"))
    };
    places(dbpath)
        .into_iter()
        .any(|place| aside(place) == Some(true))
}

fn places(dbpath: Option<&Path>) -> Vec<&Path> {
    match dbpath {
        Some(one) => vec![one],
        None => PLACES.iter().map(Path::new).collect(),
    }
}

fn look(root: &Path, place: &Path, looked: &mut Looked) -> Result<Option<Located>, ScanError> {
    let shown = root.join(place.strip_prefix("/").unwrap_or(place));
    let directory = match root::resolve(root, place) {
        Ok(directory) if directory.is_dir() => directory,
        Ok(file) => {
            looked
                .unusable
                .get_or_insert(ScanError::no_directory(root, &file));
            return Ok(None);
        }
        Err(error) if is_loop(&error) => {
            looked
                .unusable
                .get_or_insert(ScanError::unreadable(&shown, error));
            return Ok(None);
        }
        Err(error) if is_absent(&error) => {
            looked.absent.push(shown);
            return Ok(None);
        }
        Err(error) => return Err(ScanError::unreadable(&shown, error)),
    };
    for backend in Backend::ALL {
        let relative = place.join(backend.file_name());
        let shown = shown.join(backend.file_name());
        // A file in it may be a link as well, also a dangling one.
        match root::resolve(root, &relative) {
            Ok(main_file) if main_file.is_file() => {
                let relative = escape(place.as_os_str().as_bytes()).into_owned();
                return Ok(Some(Located {
                    directory,
                    relative: relative.trim_matches('/').to_owned(),
                    main_file,
                    backend,
                }));
            }
            Ok(_) => {
                let error = io::Error::other("is no regular file");
                looked
                    .unusable
                    .get_or_insert(ScanError::unreadable(&shown, error));
            }
            Err(error) if is_loop(&error) => {
                looked
                    .unusable
                    .get_or_insert(ScanError::unreadable(&shown, error));
            }
            Err(error) if is_absent(&error) => looked.absent.push(shown),
            Err(error) => return Err(ScanError::unreadable(&shown, error)),
        }
    }
    Ok(None)
}

/// Opens a file that sqlite keeps beside the main one, a real path below `root`, under this suffix;
/// `None` when it is missing or empty, which mean the same.
pub(super) fn open_beside(
    root: &Path,
    main: &Path,
    suffix: &str,
) -> Result<Option<OpenFile>, ScanError> {
    let mut path = main.to_owned().into_os_string();
    path.push(suffix);
    let path = PathBuf::from(path);
    match root::resolve_real(root, &path).and_then(|path| OpenFile::open(&path)) {
        Ok(file) => Ok((file.size() > 0).then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ScanError::unreadable(&path, error)),
    }
}

/// The first `length` bytes, fewer of a shorter file.
pub(super) fn head(file: &OpenFile, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let got = crate::rpmdb::ReadAt::read_at(file, &mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}
