//! What is kept of a guest and of a pending report: the rows of the tables.

use super::{v1, v2};
use crate::clock::WallTime;
use crate::report::{Digest, Envelope, FactsHash, GuestId, ReportKey, ReportSummary, Trigger};
use crate::store::codec::{Row, second_version};
use crate::store::{CodecError, codec};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

second_version!(
    SlotRow: v1::SlotRow,
    Envelope<'a>: v1::Envelope<'a>,
);

impl Row<'_> for GuestRow {
    const VERSION: u8 = 3;

    fn read_old(version: u8, fields: &[u8]) -> Result<Self, CodecError> {
        match version {
            1 => codec::fields::<v1::GuestRow>(fields).map(Into::into),
            2 => codec::fields::<v2::GuestRow>(fields).map(Into::into),
            other => Err(CodecError::UnknownVersion(Some(other))),
        }
    }
}

/// Names one document about a guest: a report, or the facts that changed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DocumentId {
    /// Epoch and generation, as the guest counts.
    pub key: ReportKey,
    /// The sensor's own hash over the content of the report.
    pub digest: Digest,
    /// Set for a document of facts alone: the hash over them.
    pub facts: Option<FactsHash>,
}

/// What an agent said last of its report, to be sent back to it as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Echo {
    /// No report of it is known.
    #[default]
    Nothing,
    /// Its generation and epoch, and the fact `report_digest`.
    Pair {
        /// Generation and epoch.
        key: ReportKey,
        /// As the agent issued it; `None` where it did not say.
        digest: Option<Digest>,
    },
    /// The token of an agent that counts no generations.
    Token(String),
}

impl From<&ReportSummary> for DocumentId {
    fn from(summary: &ReportSummary) -> Self {
        Self {
            key: summary.key,
            digest: summary.digest,
            facts: summary.facts_alone,
        }
    }
}

/// What is kept of a guest between exchanges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRow {
    /// The newest report that is, or was, in pending.
    pub known: Option<DocumentId>,
    /// What its agent said of that report.
    pub echo: Echo,
    /// The machine that answered last.
    pub guest_id: Option<GuestId>,
    /// Whether it can hold a wait.
    pub waits: bool,
    /// When its agent made the known report: tells apart restarts of agents without an epoch.
    pub generated_at: WallTime,
    /// When it last sent a whole report.
    pub full_at: WallTime,
    /// The report that Central accepted last, and when; kept up by [`PendingChange::Clear`](super::PendingChange::Clear) alone.
    pub accepted: Option<(DocumentId, WallTime)>,
    /// Over the facts in the newest document that is, or was, in pending.
    pub facts: Option<FactsHash>,
    /// Number of different tokens of an agent that counts no generations.
    pub tokens: u32,
    /// UUID of the libvirt domain that all of this is known of; `None`: no source has named one.
    pub domain: Option<Uuid>,
}

impl GuestRow {
    /// Whether it is known of another domain than this one. A guest of which no source says what domain
    /// it is may be any.
    pub fn is_of_another_domain(&self, domain: Option<Uuid>) -> bool {
        self.domain.is_some() && domain.is_some() && self.domain != domain
    }
}

/// Places in the two rings of the queue; lower goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePlace {
    /// Among reactive reports.
    pub reactive: Option<u64>,
    /// Among routine reports.
    pub routine: Option<u64>,
}

impl QueuePlace {
    /// In neither ring.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// A pending report, all but its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRow {
    /// Which report.
    pub report: DocumentId,
    /// Why its scan ran.
    pub trigger: Trigger,
    /// When the agent made it.
    pub generated_at: WallTime,
    /// Since when the guest has something undelivered.
    pub since: WallTime,
    /// Number of packages in it.
    pub packages: u32,
    /// Where it stands in the queue.
    pub place: QueuePlace,
    /// Deliveries that failed.
    pub attempts: u32,
    /// Not to be sent before.
    pub not_before: WallTime,
    /// Whether Central refused it once: its retries are routine.
    pub demoted: bool,
    /// Why it is no longer sent; `None`: it is.
    pub dead: Option<String>,
    /// What the last attempt said.
    pub last_error: Option<String>,
}
