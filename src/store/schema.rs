//! The format of a file as a whole, and the names of all tables.
//!
//! A program opens files of its own format and of every older one, and leaves newer ones alone. A file
//! of an older format is marked as one of this format when it is opened, in a transaction of its own:
//! from then on the older program leaves it alone. Its rows stay as they are, since each carries its
//! own version ([`super::row`]).
//!
//! | Format | Program | |
//! |---|---|---|
//! | 1 | 0.1 | |
//! | 2 | 0.2 | later versions of the rows of `serve` and `sense`, of `rack` and `component`; rows of `audit` packed together; tables `sense_meta`, `nvldomain`, `mapping_*`, `audit_checkpoint` |

use super::TxError;
use redb::{ReadableDatabase, TableDefinition};
use std::panic::catch_unwind;
use std::path::Path;

/// Newest format this program knows.
pub const FORMAT: u64 = 2;

/// One row, `format`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The format of a file that is newer than [`FORMAT`], looked at without writing a byte: opening a file
/// to be written rewrites redb's own bookkeeping. `None` also where that is not possible, as in a file
/// that was not closed, or in one on which redb panics: whether a file is damaged is for the opening to
/// be written to decide, which repairs some of what this look cannot read.
pub(super) fn newer(path: &Path) -> Option<u64> {
    let look = || {
        let db = redb::Builder::new().open_read_only(path).ok()?;
        read(&db).ok()?
    };
    let format = catch_unwind(look).ok().flatten()?;
    (format > FORMAT).then_some(format)
}

pub(super) fn read(db: &impl ReadableDatabase) -> Result<Option<u64>, TxError> {
    match db.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.map(|v| v.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes the format into a new or older file. Gives the format of one that is newer than [`FORMAT`].
pub(super) fn check(db: &redb::Database) -> Result<Option<u64>, TxError> {
    match read(db)? {
        Some(format) if format > FORMAT => Ok(Some(format)),
        Some(FORMAT) => Ok(None),
        Some(_) | None => {
            let tx = db.begin_write()?;
            set(&tx, FORMAT)?;
            tx.commit()?;
            Ok(None)
        }
    }
}

pub(super) fn set(tx: &redb::WriteTransaction, format: u64) -> Result<(), TxError> {
    tx.open_table(META)?.insert("format", format)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::torn_disk::TornDisk;
    use super::*;
    const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("rows of format 1");

    fn format_1() -> TornDisk {
        let disk = TornDisk::new();
        let store = Store::on_backend(disk.clone()).unwrap();
        store
            .write(|tx| {
                set(tx, 1)?;
                tx.open_table(TABLE)?.insert("row", &[1, 7][..])?;
                Ok(())
            })
            .unwrap();
        disk
    }

    /// The loss: a file that is called damaged by a look at it, before anybody tried to open it.
    #[test]
    fn a_file_on_which_redb_panics_is_not_judged_by_its_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.redb");
        drop(Store::open(dir.path(), "test.redb", 1 << 20).unwrap().store);
        let whole = std::fs::read(&path).unwrap();
        let panics = |at: &usize| {
            let mut bytes = whole.clone();
            bytes[*at] ^= 0x41;
            std::fs::write(&path, &bytes).unwrap();
            let look = || redb::Builder::new().open_read_only(&path).map(drop);
            catch_unwind(look).is_err()
        };
        let written = (0..whole.len()).filter(|at| whole[*at] != 0);
        written
            .step_by(8)
            .find(panics)
            .expect("redb panics on one of these files");
        assert_eq!(newer(&path), None);
    }

    /// The loss: an upgrade that is interrupted, after which neither program opens the file.
    #[test]
    fn a_power_cut_at_any_moment_of_the_upgrade_loses_nothing() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut cuts = 0;
        for operations in 0.. {
            let disk = format_1();
            disk.fail_after(operations);
            let _ = Store::on_backend(disk.clone());
            let was_cut = disk.is_dark();
            disk.recover(&mut random);
            let store = Store::on_backend(disk.clone()).unwrap();
            let (format, row) = store
                .read(|tx| {
                    let format = tx.open_table(META)?.get("format")?.map(|f| f.value());
                    let row = tx
                        .open_table(TABLE)?
                        .get("row")?
                        .map(|r| r.value().to_vec());
                    Ok((format, row))
                })
                .unwrap();
            assert_eq!(
                (format, row),
                (Some(FORMAT), Some(vec![1, 7])),
                "{operations}"
            );
            if !was_cut {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 3, "the power was cut {cuts} times");
    }
}
