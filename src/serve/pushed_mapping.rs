//! The mapping that a sensor pushed: on disk where that can be, else in memory until it can.

use super::mapping_table::{self, MappingRow};
use super::repo_cpe::RepoCpeError;
use crate::clock::WallTime;
use crate::report::MappingHash;
use crate::report::mapping::{self, LONGEST};
use crate::store::{Store, StoreError};

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is another mapping than before, and kept.
    Updated(MappingHash),
    /// It is the mapping that is in use.
    Same(MappingHash),
    /// It is no mapping; says why.
    Malformed(String),
    /// It could not be kept; the one before is still in use.
    Failed(String),
}

/// The newest mapping.
#[derive(Default)]
pub(super) struct PushedMapping {
    row: Option<MappingRow>,
    /// Only while it could not be stored.
    in_memory: Option<String>,
}

impl PushedMapping {
    /// The one that was stored. One that cannot be read is as none: the sensor pushes it again.
    pub(super) fn load(store: Option<&Store>) -> Self {
        let row = match store.map(mapping_table::load_row) {
            Some(Ok(row)) => row,
            Some(Err(error)) => {
                tracing::error!(%error, "the stored mapping cannot be read; the sensor has to push it again");
                None
            }
            None => None,
        };
        Self {
            row,
            in_memory: None,
        }
    }

    /// Of the mapping, if there is one.
    pub(super) fn hash(&self) -> Option<MappingHash> {
        self.row.map(|row| row.hash)
    }

    /// Whether `json` is to be kept: gives what it is kept as, or what is answered at once. Takes a while.
    pub(super) fn check(
        &self,
        json: Vec<u8>,
        received_at: WallTime,
    ) -> Result<(MappingRow, String), Pushed> {
        if json.len() > LONGEST {
            let why = format!(
                "a mapping of {} bytes, at most {LONGEST} are taken",
                json.len()
            );
            return Err(Pushed::Malformed(why));
        }
        let hash = MappingHash::of(&json);
        if self.hash() == Some(hash) {
            return Err(Pushed::Same(hash));
        }
        let not_one = |error: String| Pushed::Malformed(format!("not a mapping: {error}"));
        mapping::check(&json).map_err(not_one)?;
        let json = String::from_utf8(json).map_err(|error| not_one(error.to_string()))?;
        Ok((MappingRow { hash, received_at }, json))
    }

    /// Keeps a mapping that was checked. On an error the one before stays.
    pub(super) fn keep(
        &mut self,
        store: Option<&Store>,
        row: MappingRow,
        json: String,
    ) -> Result<(), StoreError> {
        let in_memory = match store {
            Some(store) => {
                mapping_table::replace(store, &row, &json)?;
                None
            }
            None => Some(json),
        };
        (self.row, self.in_memory) = (Some(row), in_memory);
        Ok(())
    }

    /// Stores what could not be stored before, as soon as there is a store; forgets what was in one that was
    /// moved aside.
    pub(super) fn follow(&mut self, store: Option<&Store>) {
        let (Some(store), Some(row)) = (store, &self.row) else {
            return;
        };
        match &self.in_memory {
            Some(json) => match mapping_table::replace(store, row, json) {
                Ok(()) => self.in_memory = None,
                Err(error) => tracing::debug!(%error, "the mapping still cannot be stored"),
            },
            None => *self = Self::load(Some(store)),
        }
    }

    /// The content.
    pub(super) fn read(&self, store: Option<&Store>) -> Result<String, RepoCpeError> {
        if let Some(json) = &self.in_memory {
            return Ok(json.clone());
        }
        let stored = store.map(mapping_table::load).transpose();
        let what = match stored.map(Option::flatten) {
            Ok(Some((_, json))) => return Ok(json),
            Ok(None) => "it is not there any more".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(RepoCpeError::Pushed { what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: &str = r#"{"data": {}}"#;

    fn store(dir: &tempfile::TempDir) -> Store {
        Store::open(dir.path(), "serve.redb", 1 << 20)
            .unwrap()
            .store
    }

    /// The loss: a guest whose disk was full for a moment has no CPEs after its next start.
    #[test]
    fn a_mapping_that_could_not_be_stored_is_used_and_stored_later() {
        let mut pushed = PushedMapping::load(None);
        let (row, json) = pushed
            .check(MAPPING.into(), WallTime::from_unix_ms(1))
            .unwrap();
        pushed.keep(None, row, json).unwrap();
        assert_eq!(pushed.read(None).unwrap(), MAPPING);
        assert_eq!(
            pushed.check(MAPPING.into(), WallTime::from_unix_ms(1)),
            Err(Pushed::Same(MappingHash::of(MAPPING.as_bytes())))
        );
        let dir = tempfile::tempdir().unwrap();
        let disk = store(&dir);
        pushed.follow(Some(&disk));
        drop(disk);
        let disk = store(&dir);
        let loaded = PushedMapping::load(Some(&disk));
        assert_eq!(loaded.hash(), Some(row.hash));
        assert_eq!(loaded.read(Some(&disk)).unwrap(), MAPPING);
    }

    #[test]
    fn a_mapping_in_a_store_that_was_moved_aside_is_asked_for_again() {
        let [old, new] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let disk = store(&old);
        let mut pushed = PushedMapping::load(Some(&disk));
        let (row, json) = pushed
            .check(MAPPING.into(), WallTime::from_unix_ms(1))
            .unwrap();
        pushed.keep(Some(&disk), row, json).unwrap();
        pushed.follow(Some(&disk));
        assert_eq!(pushed.hash(), Some(row.hash));
        pushed.follow(Some(&store(&new)));
        assert_eq!(pushed.hash(), None);
    }
}
