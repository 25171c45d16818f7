//! Version 2 of the row of a guest, which had no domain. Only read, never changed.

use super::{DocumentId, Echo};
use crate::clock::WallTime;
use crate::report::{FactsHash, GuestId};
use crate::sense::queue::table;
use serde::Deserialize;

/// A row of `sense_guests`.
#[derive(Deserialize)]
pub(super) struct GuestRow {
    known: Option<DocumentId>,
    echo: Echo,
    guest_id: Option<GuestId>,
    waits: bool,
    generated_at: WallTime,
    full_at: WallTime,
    accepted: Option<(DocumentId, WallTime)>,
    facts: Option<FactsHash>,
    tokens: u32,
}

impl From<GuestRow> for table::GuestRow {
    fn from(row: GuestRow) -> Self {
        Self {
            known: row.known,
            echo: row.echo,
            guest_id: row.guest_id,
            waits: row.waits,
            generated_at: row.generated_at,
            full_at: row.full_at,
            accepted: row.accepted,
            facts: row.facts,
            tokens: row.tokens,
            domain: None,
        }
    }
}
