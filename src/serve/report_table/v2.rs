//! Version 2 of rows that have a newer one. Only read, never changed.

use crate::clock::WallTime;
use crate::report::{Digest, Facts, ReportKey, Trigger};
use serde::Deserialize;

/// What was kept of an agent's newest report before it was known with which mapping it was made.
#[derive(Deserialize)]
pub(super) struct ReportRow {
    key: ReportKey,
    digest: Digest,
    digest_form: u8,
    trigger: Trigger,
    generated_at: WallTime,
    scan_facts: Facts,
}

impl From<ReportRow> for super::ReportRow {
    fn from(row: ReportRow) -> Self {
        Self {
            key: row.key,
            digest: row.digest,
            digest_form: row.digest_form,
            trigger: row.trigger,
            generated_at: row.generated_at,
            scan_facts: row.scan_facts,
            mapping: None,
        }
    }
}
