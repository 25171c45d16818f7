//! Where the package database is, and whether anything in it changed.

use super::error::ScanError;
use super::file::{OpenFile, Stamp};
use super::rooted;
use crate::rpmdb::{Backend, ReadAt as _};
use std::io;
use std::path::{Path, PathBuf};

/// Where rpm keeps its database, newest habit first. ostree systems have the last one.
pub const PLACES: [&str; 3] = ["usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"];

/// A package database that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its directory, with links resolved below the root.
    pub directory: PathBuf,
    /// Its directory as a report names it: below the root, without a leading `/`.
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
///
/// # Errors
/// [`ScanError::NoDatabase`] names every place that was looked at; [`ScanError::Unreadable`] when
/// a place may not be looked into.
pub fn locate(root: &Path, dbpath: Option<&Path>) -> Result<Located, ScanError> {
    let mut looked = Vec::new();
    for place in places(dbpath) {
        if let Some(found) = look(root, place, &mut looked)? {
            return Ok(found);
        }
    }
    Err(ScanError::NoDatabase { looked })
}

/// A second database, in the same place or in another; `None` when there is none or it cannot be
/// told.
pub(super) fn another(root: &Path, dbpath: Option<&Path>, found: &Located) -> Option<PathBuf> {
    places(dbpath).into_iter().find_map(|place| {
        let files = Backend::ALL.map(|backend| place.join(backend.file_name()));
        files
            .iter()
            .filter_map(|file| rooted::resolve(root, file).ok())
            .find(|file| file.is_file() && *file != found.main_file)
    })
}

/// Whether a rebuild has moved a database directory aside and not yet put the new one in its place:
/// `rpmdb --rebuilddb` renames `rpm` to `rpmold.PID`, and `rpmrebuilddb.PID` to `rpm`.
pub(super) fn moved_away(root: &Path, dbpath: Option<&Path>) -> bool {
    let aside = |place: &Path| {
        let (parent, name) = (place.parent()?.to_str()?, place.file_name()?.to_str()?);
        let names = rooted::list(root, parent)?;
        let with = |suffix: &str| {
            let start = format!("{name}{suffix}.");
            names.iter().any(|name| name.starts_with(&start))
        };
        Some(!names.iter().any(|there| there == name) && with("old") && with("rebuilddb"))
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

fn look(
    root: &Path,
    place: &Path,
    looked: &mut Vec<PathBuf>,
) -> Result<Option<Located>, ScanError> {
    for backend in Backend::ALL {
        let relative = place.join(backend.file_name());
        let shown = root.join(relative.strip_prefix("/").unwrap_or(&relative));
        let directory = match rooted::resolve(root, place) {
            Ok(directory) => directory,
            Err(error) if is_absent(&error) => {
                looked.extend(shown.parent().map(Path::to_owned));
                return Ok(None);
            }
            Err(error) => return Err(ScanError::unreadable(&shown, error)),
        };
        // A file in it may be a link as well, also a dangling one.
        match rooted::resolve(root, &relative) {
            Ok(main_file) if main_file.is_file() => {
                let relative = place.to_string_lossy();
                return Ok(Some(Located {
                    directory,
                    relative: relative.trim_matches('/').to_owned(),
                    main_file,
                    backend,
                }));
            }
            Ok(_) => looked.push(shown),
            Err(error) if is_absent(&error) => looked.push(shown),
            Err(error) => return Err(ScanError::unreadable(&shown, error)),
        }
    }
    Ok(None)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Opens a file that sqlite keeps beside the main one, under this suffix; `None` when it is missing
/// or empty, which mean the same.
pub(super) fn open_beside(main: &Path, suffix: &str) -> Result<Option<OpenFile>, ScanError> {
    let mut path = main.to_owned().into_os_string();
    path.push(suffix);
    let path = PathBuf::from(path);
    match OpenFile::open(&path) {
        Ok(file) => Ok((file.size() > 0).then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ScanError::unreadable(&path, error)),
    }
}

/// What changes when the database does: equal prints mean an equal content.
///
/// A refused install, a query, `rpmdb --verifydb` and `--exportdb` leave it as it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    main: Stamp,
    /// First bytes of the main file: sqlite's change counter, ndb's generation.
    head: Vec<u8>,
    /// Size and header (salts, checkpoint number) of a `-wal` with content.
    log: Option<(u64, Vec<u8>)>,
}

/// Takes the fingerprint of a database: a few small reads.
///
/// # Errors
/// The main file, or a `-wal` with content, cannot be opened or read.
pub fn fingerprint(located: &Located) -> Result<Fingerprint, ScanError> {
    let unreadable = |error| ScanError::unreadable(&located.main_file, error);
    let main = OpenFile::open(&located.main_file).map_err(unreadable)?;
    let log = match located.backend {
        Backend::Sqlite => open_beside(&located.main_file, "-wal")?,
        Backend::Ndb | Backend::Bdb => None,
    };
    let log = match log {
        Some(file) => Some((file.size(), head(&file, 32).map_err(unreadable)?)),
        None => None,
    };
    Ok(Fingerprint {
        main: main.stamp().map_err(unreadable)?,
        head: head(&main, 100).map_err(unreadable)?,
        log,
    })
}

/// The first `length` bytes, fewer of a shorter file.
pub(super) fn head(file: &OpenFile, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let got = crate::rpmdb::ReadAt::read_at(file, &mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}
