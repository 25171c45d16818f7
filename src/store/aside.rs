//! Damaged files that were moved aside: kept for a while, so that somebody can look at them, and bounded,
//! so that a disk that goes bad does not fill up with them.

use super::StoreError;
use crate::clock::{WallTime, show_duration};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between the name of the file and the time at which it was moved.
const MARK: &str = ".corrupt-";

/// How many damaged files of one name are kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Older ones are removed.
    pub max_age: Duration,
    /// Of more, the oldest are removed.
    pub max_count: usize,
}

impl Limits {
    /// Everything is kept: for whoever does not know what was configured.
    pub const NONE: Self = Self {
        max_age: Duration::MAX,
        max_count: usize::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(30 * 24 * 3600),
            max_count: 5,
        }
    }
}

/// Renames a file to `NAME.corrupt-<time>` and gives its new path.
pub(super) fn move_aside(path: &Path, now: WallTime) -> Result<PathBuf, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut aside = path.with_file_name(format!("{name}{MARK}{now}"));
    for n in 1.. {
        if !aside.exists() {
            break;
        }
        aside = path.with_file_name(format!("{name}{MARK}{now}-{n}"));
    }
    fs::rename(path, &aside).map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

/// Removes what is beyond the limits, the oldest first, and tells of each.
pub(super) fn prune(path: &Path, limits: Limits, now: WallTime) {
    let all = find(path);
    let excess = all.len().saturating_sub(limits.max_count);
    for (n, (moved_at, aside)) in all.iter().enumerate() {
        let age = now.since(*moved_at);
        if n >= excess && age <= limits.max_age {
            continue;
        }
        let (file, age) = (aside.display(), show_duration(age));
        match fs::remove_file(aside) {
            Ok(()) => tracing::warn!(%file, age, "a damaged store that was moved aside is removed"),
            Err(error) => {
                tracing::warn!(%file, %error, "a damaged store that was moved aside cannot be removed");
            }
        }
    }
}

/// Whether a file of this name was moved aside and is still there.
pub(super) fn any(path: &Path) -> bool {
    !find(path).is_empty()
}

/// All that were moved aside, by the time in their names, the oldest first.
fn find(path: &Path) -> Vec<(WallTime, PathBuf)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let start = format!("{name}{MARK}");
    let directory = path.parent().unwrap_or(path);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<(WallTime, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let time = name.strip_prefix(&start)?;
            // 2026-11-21T10:00:00.123Z, and a number where two were moved at once.
            let end = time.find('Z')? + 1;
            Some((time.get(..end)?.parse().ok()?, entry.path()))
        })
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    // The loss: a disk that goes bad, filled with copies of what it damaged.
    #[test]
    fn damaged_files_are_bounded_by_age_and_count_and_nothing_else_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.redb");
        let now = WallTime::from_unix_ms(1_800_000_000_000);
        let hours = |n: u64| now.unix_ms() - n * 3_600_000;
        let mut moved = Vec::new();
        for age in [1, 2, 2, 3, 50] {
            fs::write(&path, "damaged").unwrap();
            let at = WallTime::from_unix_ms(hours(age));
            moved.push(move_aside(&path, at).unwrap());
        }
        let others = [
            "test.redb",
            "test.redb.corrupt-by-hand",
            "other.redb.corrupt-2000-01-01T00:00:00Z",
        ];
        for name in others {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let limits = Limits {
            max_age: Duration::from_secs(49 * 3600),
            max_count: 4,
        };
        let left = || moved.iter().map(|file| file.exists()).collect::<Vec<_>>();
        prune(&path, limits, now);
        assert_eq!(left(), [true, true, true, true, false]);
        let limits = Limits {
            max_count: 2,
            ..limits
        };
        prune(&path, limits, now);
        assert_eq!(left(), [true, false, true, false, false]);
        // A clock that was set back makes nothing old.
        prune(&path, limits, WallTime::default());
        assert!(any(&path));
        assert!(others.iter().all(|name| dir.path().join(name).exists()));
    }
}
