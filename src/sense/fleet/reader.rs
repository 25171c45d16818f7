//! The fleet store of a reader of the stream: documents of all sensors come in batches.

use super::Fleet;
use super::document::FleetDocument;
use super::newest::Intake;
use super::table::{FleetTx, META, opened};
use crate::report::VmId;
use crate::store::{Store, StoreError};

/// Name of the number by which a stream knows this store.
const READER: &str = "reader";

impl Fleet {
    /// Stores those of `documents` that are newer than what is here, all in one transaction; gives what became of
    /// each. Their `seen_at` is the [effective one](super::effective_seen_at).
    ///
    /// # Errors
    /// The file cannot be written: none is stored.
    pub fn take_newest(
        &self,
        store: &Store,
        documents: &[(&VmId, &FleetDocument)],
    ) -> Result<Vec<Intake>, StoreError> {
        let (intakes, staged) = store.write(|tx| {
            let mut fleet_tx = FleetTx::begin(self, tx)?;
            let mut intakes = Vec::with_capacity(documents.len());
            for (vm, document) in documents {
                intakes.push(fleet_tx.put_newest(vm, document)?);
            }
            Ok((intakes, fleet_tx.end()?))
        })?;
        self.committed(staged);
        Ok(intakes)
    }

    /// The number by which a stream knows this store. One that is new, or lost something, gets a new one: it reads
    /// the stream from its beginning.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn reader_number(store: &Store, has_lost: bool) -> Result<u64, StoreError> {
        let held = store.read(|tx| {
            let Some(meta) = opened(tx, META)? else {
                return Ok(None);
            };
            Ok(meta.get(READER)?.map(|number| number.value()))
        })?;
        if let (Some(number), false) = (held, has_lost) {
            return Ok(number);
        }
        let number = fastrand::u64(..);
        store.write(|tx| {
            tx.open_table(META)?.insert(READER, number)?;
            Ok(())
        })?;
        Ok(number)
    }
}
