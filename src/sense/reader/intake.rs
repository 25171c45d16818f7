//! What becomes of a message of the stream: it is read, checked, and stored if it is newer than what is here.

use crate::clock::WallTime;
use crate::report::VmId;
use crate::sense::deliver::sink::{FACTS, REPORTS, word};
use crate::sense::fleet::{Fleet, FleetDocument, FleetLimits, Intake, effective_seen_at};
use crate::store::{Store, StoreError};
use crate::wire::read_document::{ReadDocument, ReadKind};
use flate2::read::GzDecoder;
use std::borrow::Cow;
use std::io::Read as _;
use std::sync::Arc;

/// Longest document, unpacked, in bytes.
const MAX_DOCUMENT: u64 = 64 << 20;

/// A message of the stream.
#[derive(Clone, Copy, Debug)]
pub struct IncomingDocument<'a> {
    /// Where it was published.
    pub subject: &'a str,
    /// Whether its content is compressed.
    pub is_gzip: bool,
    /// Its content.
    pub payload: &'a [u8],
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeOutcome {
    /// It was judged by what is stored of its guest.
    Judged(Intake),
    /// It is of a kind that the fleet store has no use for.
    Ignored,
    /// It is no document, and why: it never will be one.
    Bad(String),
}

impl IntakeOutcome {
    /// Labels in metrics.
    pub(super) const LABELS: [&str; 5] = ["taken", "older", "unmatched", "ignored", "bad"];

    /// The label in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Judged(Intake::Taken) => "taken",
            Self::Judged(Intake::Older) => "older",
            Self::Judged(Intake::Unmatched) => "unmatched",
            Self::Ignored => "ignored",
            Self::Bad(_) => "bad",
        }
    }
}

/// A message that was read.
pub(super) enum PreparedDocument {
    Guest(VmId, Box<FleetDocument>),
    Ignored,
    Bad(String),
}

/// The fleet store of a reader.
pub struct ReportIntake {
    store: Arc<Store>,
    fleet: Arc<Fleet>,
    /// Whether rows were lost, so that the stream is to be read anew.
    has_lost: bool,
}

impl ReportIntake {
    /// Takes over what is stored.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(store: Arc<Store>, limits: FleetLimits) -> Result<Self, StoreError> {
        let (fleet, useless) = match Fleet::load_all(&store, limits) {
            Ok(loaded) => loaded,
            Err(error) => {
                store.recover(error)?;
                Fleet::load_all(&store, limits)?
            }
        };
        Ok(Self {
            store,
            fleet: Arc::new(fleet),
            has_lost: useless > 0,
        })
    }

    /// The fleet store.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// The number by which a stream knows this store.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        let number = Fleet::reader_number(&self.store, self.has_lost)?;
        self.has_lost = false;
        Ok(number)
    }

    /// What to do after an error of the store: where the file is damaged, a new one is begun.
    pub(super) fn recover(&self, error: StoreError) -> Result<(), StoreError> {
        self.store.recover(error)?;
        self.fleet.lost();
        Ok(())
    }

    /// Takes messages that come `now`; gives what became of each, once that is on disk.
    ///
    /// # Errors
    /// The file cannot be written: none is stored.
    pub fn take(
        &self,
        messages: &[IncomingDocument<'_>],
        now: WallTime,
    ) -> Result<Vec<IntakeOutcome>, StoreError> {
        let messages = messages.iter();
        let prepared: Vec<_> = messages.map(|message| self.prepare(message, now)).collect();
        self.store(&prepared)
    }

    /// Reads and checks a message.
    pub(super) fn prepare(
        &self,
        message: &IncomingDocument<'_>,
        now: WallTime,
    ) -> PreparedDocument {
        let is_below = |prefix: &str| {
            let rest = message.subject.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        if !is_below(REPORTS) && !is_below(FACTS) {
            return PreparedDocument::Ignored;
        }
        self.read(message, now)
            .unwrap_or_else(PreparedDocument::Bad)
    }

    fn read(
        &self,
        message: &IncomingDocument<'_>,
        now: WallTime,
    ) -> Result<PreparedDocument, String> {
        let body = match message.is_gzip {
            true => Cow::Owned(unpack(message.payload)?),
            false => Cow::Borrowed(message.payload),
        };
        let document = ReadDocument::parse(&body)?;
        if document.kind() == ReadKind::Other {
            return Ok(PreparedDocument::Ignored);
        }
        let mut envelope = document.envelope()?;
        // Who may publish about one guest must not speak for another.
        let word = word(envelope.vm.as_str());
        let last = message.subject.rsplit_once('.').map(|(_, last)| last);
        if last != Some(word.as_str()) {
            return Err(format!("it is about the guest {:?}", envelope.vm.as_str()));
        }
        envelope.seen_at = effective_seen_at(envelope.seen_at, now);
        let prepared = self.fleet.prepare(&envelope);
        let prepared = prepared.ok_or("its packages cannot be stored")?;
        Ok(PreparedDocument::Guest(envelope.vm, Box::new(prepared)))
    }

    /// Stores what was read, in one transaction.
    ///
    /// # Errors
    /// The file cannot be written: none is stored.
    pub(super) fn store(
        &self,
        prepared: &[PreparedDocument],
    ) -> Result<Vec<IntakeOutcome>, StoreError> {
        let documents = prepared.iter().filter_map(|message| match message {
            PreparedDocument::Guest(vm, document) => Some((vm, &**document)),
            _ => None,
        });
        let documents: Vec<_> = documents.collect();
        let judged = match documents.is_empty() {
            true => Vec::new(),
            false => self.fleet.take_newest(&self.store, &documents)?,
        };
        let mut judged = judged.into_iter().map(IntakeOutcome::Judged);
        let outcomes = prepared.iter().filter_map(|message| match message {
            PreparedDocument::Guest(..) => judged.next(),
            PreparedDocument::Ignored => Some(IntakeOutcome::Ignored),
            PreparedDocument::Bad(why) => Some(IntakeOutcome::Bad(why.clone())),
        });
        Ok(outcomes.collect())
    }
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut unpacked = GzDecoder::new(payload).take(MAX_DOCUMENT + 1);
    unpacked
        .read_to_end(&mut body)
        .map_err(|error| format!("its content is not gzip: {error}"))?;
    match body.len() as u64 > MAX_DOCUMENT {
        true => Err(format!("it is longer than {} MiB", MAX_DOCUMENT >> 20)),
        false => Ok(body),
    }
}
