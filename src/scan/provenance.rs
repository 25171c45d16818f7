//! Which repository each package came from, as the histories of dnf tell it.
//!
//! The newest history that has an entry for a package decides, also where the entry names no
//! repository: an older one is asked only when there is none at all. A history that cannot be read
//! costs the repositories, never the report.

use super::database::open_beside;
use super::file::{OpenFile, Stamps};
use super::history::{History, Trouble};
use crate::clock;
use crate::report::{Origin, Package, Repository};
use crate::root::{self, is_absent};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Oldest first: dnf4, dnf4 of SUSE, dnf5.
const PLACES: [&str; 3] = [
    "var/lib/dnf/history.sqlite",
    "usr/lib/sysimage/dnf/history.sqlite",
    "usr/lib/sysimage/libdnf5/transaction_history.sqlite",
];

/// A history that is written to for longer than this is not waited for.
const LONGEST_WRITE: Duration = Duration::from_secs(10);

/// Where yum keeps its history.
const YUM: [&str; 1] = ["var/lib/yum/history"];

/// What a system has that was installed as an image.
const IMAGE: [&str; 3] = ["run/ostree-booted", "usr/lib/bootc", "sysroot/ostree"];

/// What became of the histories of dnf; of several, the worst.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HistoryState {
    /// There is none.
    #[default]
    Absent,
    /// All that are there were read.
    Read,
    /// One is not a history, or is damaged; path and reason.
    Damaged(String),
    /// One cannot be read; path and reason.
    Unreadable(String),
}

impl HistoryState {
    /// The value of the fact `provenance`.
    pub fn fact(&self) -> &'static str {
        match self {
            Self::Absent => "none",
            Self::Read => "ok",
            Self::Damaged(_) => "damaged",
            Self::Unreadable(_) => "unreadable",
        }
    }

    /// Which history is missing from the report, and why.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Self::Absent | Self::Read => None,
            Self::Damaged(why) | Self::Unreadable(why) => Some(why),
        }
    }
}

/// What is known of where packages came from, kept between scans.
#[derive(Debug, Default)]
pub(super) struct Provenance {
    /// In the order of [`PLACES`].
    known: Vec<Known>,
    state: HistoryState,
    /// Since when a history could not be read because it was written to all the time.
    busy: Option<Busy>,
}

/// A history that was written to all the time.
#[derive(Debug)]
struct Busy {
    since: Instant,
    path: PathBuf,
}

/// A history that was read.
#[derive(Debug)]
struct Known {
    place: &'static str,
    stamps: Stamps,
    history: History,
}

impl Provenance {
    /// Reads the histories that changed since the last time; tries for as long as `retry_for` each.
    pub(super) fn refresh(&mut self, root: &Path, retry_for: Duration) {
        let mut before = std::mem::take(&mut self.known);
        let was_busy = self.busy.take();
        self.state = HistoryState::Absent;
        for place in PLACES {
            let at = before.iter().position(|known| known.place == place);
            let look = look(root, place, at.map(|at| before.swap_remove(at)), retry_for);
            let (known, state) = match look {
                Look::Done(known, state) => (known, state),
                Look::Busy(known, why) => {
                    let since = was_busy.as_ref().map_or_else(clock::now, |busy| busy.since);
                    let path = root.join(place);
                    self.busy = Some(Busy { since, path });
                    (known, HistoryState::Unreadable(why))
                }
            };
            self.known.extend(known);
            self.state = std::mem::take(&mut self.state).max(state);
        }
    }

    /// The history that is being written, if one is: a report without its repositories would be replaced in
    /// a moment. `None` also when that has gone on for too long to be waited for.
    pub(super) fn being_written(&self) -> Option<&Path> {
        let busy = self.busy.as_ref()?;
        let waited = clock::now().duration_since(busy.since);
        (waited < LONGEST_WRITE).then_some(&busy.path)
    }

    pub(super) fn state(&self) -> &HistoryState {
        &self.state
    }

    /// Why there is no history, where the system keeps none by its kind.
    pub(super) fn why_absent(&self, root: &Path) -> Option<&'static str> {
        let has_any = |paths: &[&str]| {
            let mut paths = paths.iter();
            paths.any(|path| root::resolve(root, Path::new(path)).is_ok())
        };
        match self.state {
            HistoryState::Absent if has_any(&YUM) => Some(
                "the history of yum (RHEL 7 and its rebuilds) does not name the repositories of packages in a form that is read",
            ),
            HistoryState::Absent if has_any(&IMAGE) => Some(
                "the packages came with an image (ostree, bootc), and the history of its build is not in it",
            ),
            _ => None,
        }
    }

    /// Where a package came from.
    pub(super) fn origin_of(&self, package: &Package) -> Origin {
        self.entry(package)
            .map_or(Origin::Unrecorded, Origin::recorded)
    }

    /// Whether a package has that origin already.
    pub(super) fn is_origin_of(&self, package: &Package) -> bool {
        match self.entry(package) {
            Some(id) => package.origin.is_recorded() && package.origin.id() == id,
            None => !package.origin.is_recorded(),
        }
    }

    fn entry(&self, package: &Package) -> Option<&str> {
        let newest_first = self.known.iter().rev();
        newest_first
            .map(|known| known.history.entry(package))
            .find(Option::is_some)?
    }

    /// Every repository that packages were taken from, also those that are gone; sorted, each once,
    /// without local origins.
    pub(super) fn history_repositories(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.known.iter().flat_map(|k| k.history.named()).collect();
        all.into_iter().cloned().collect()
    }
}

/// What there is in one place.
enum Look {
    Done(Option<Known>, HistoryState),
    /// It is being written; says what was known, and why that did not change.
    Busy(Option<Known>, String),
}

/// Looks at one place. While it cannot be read, what was known is better than nothing.
fn look(root: &Path, place: &'static str, before: Option<Known>, retry_for: Duration) -> Look {
    let (path, stamps) = match find(root, place) {
        Ok(Some(found)) => found,
        Ok(None) => return Look::Done(None, HistoryState::Absent),
        Err(error) => {
            let why = format!("{}: cannot be read: {error}", root.join(place).display());
            return Look::Done(before, HistoryState::Unreadable(why));
        }
    };
    if before.as_ref().is_some_and(|known| known.stamps == stamps) {
        return Look::Done(before, HistoryState::Read);
    }
    match History::read(root, &path, retry_for) {
        Ok(history) => {
            let known = Known {
                place,
                stamps,
                history,
            };
            Look::Done(Some(known), HistoryState::Read)
        }
        Err(Trouble::Busy(why)) => Look::Busy(before, why),
        Err(Trouble::Damaged(why)) => Look::Done(before, HistoryState::Damaged(why)),
        Err(Trouble::Unreadable(why)) => Look::Done(before, HistoryState::Unreadable(why)),
    }
}

/// The file and its stamps; `None` where there is none, or an empty one in which dnf has recorded
/// nothing yet.
fn find(root: &Path, place: &str) -> io::Result<Option<(PathBuf, Stamps)>> {
    let found = root::resolve(root, Path::new(place)).and_then(|path| {
        let stamps = stamps(root, &path)?;
        Ok((path, stamps))
    });
    let is_empty = |stamps: &Stamps| stamps.main.size == 0 && stamps.side.is_none();
    match found {
        Ok((_, stamps)) if is_empty(&stamps) => Ok(None),
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn stamps(root: &Path, path: &Path) -> io::Result<Stamps> {
    let main = OpenFile::open(path)?.stamp()?;
    let log = open_beside(root, path, "-wal").map_err(io::Error::other)?;
    Ok(Stamps {
        main,
        side: log.and_then(|log| log.stamp().ok()),
    })
}

/// The repositories that packages came from, each once, sorted.
pub(super) fn repositories(packages: &[Package]) -> Vec<Repository> {
    let ids: BTreeSet<&str> = packages
        .iter()
        .filter_map(|p| p.origin.repository())
        .collect();
    ids.into_iter()
        .map(|id| Repository {
            id: id.to_owned(),
            ..Repository::default()
        })
        .collect()
}
