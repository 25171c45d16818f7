//! One conversation with a guest: dial, ask, hear the answer.
//!
//! ```text
//! dial ── request ──► header ──────────────► body ─────────► understood
//! 5 s                 10 s, or the wait      30 s, and one of 20 transfers
//! ```
//!
//! Whatever a guest does, or does not do, ends as one [`Failure`]. A guest that stalls in the
//! middle of its report gives its transfer back until it goes on, so that those that hang never
//! keep the others waiting.

use super::failure::Failure;
use super::schedule::Ask;
use crate::report::{
    Digest, Envelope, Epoch, Facts, Generation, GuestId, ReportKey, Trigger, VmId, facts,
};
use crate::store::pending_table::{GuestRow, Known};
use crate::transport::{self, ClientTls, DialAddress, ReadError, Stream};
use crate::wire::message::{
    ErrorCode, GetReport, RequestMeta, VmServiceRequest, WaitReport, request,
};
use crate::wire::response::{Payload, ReportError, Response};
use crate::wire::{self, frame, method};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Longest time until there is a connection.
const DIAL: Duration = Duration::from_secs(5);

/// Longest time from there to the first bytes of an answer that is not waited for.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// A wait is given up this long after it should have been answered: a machine that was reset may
/// never close its side.
const GRACE: Duration = Duration::from_secs(10);

/// Longest time from the first bytes of an answer to its last.
const BODY: Duration = Duration::from_secs(30);

/// A guest that sends nothing for this long lends its transfer to another.
const STALL: Duration = Duration::from_millis(250);

/// Answers up to this length are no transfers: they fit what arrives with the first read.
const SMALL: usize = 4 << 10;

/// Memory that a transfer takes at once for a body that was announced, in bytes.
const AT_ONCE: usize = 512 << 10;

/// A body is read in steps of this many bytes, so that memory follows what has arrived.
const STEP: usize = 64 << 10;

/// Memory that guests which stalled in the middle may hold together, in bytes.
const MOST_STALLED: u32 = 32 << 20;

/// What bounds conversations together.
pub struct Lanes {
    /// Reports that are being received and stored.
    pub transfers: Semaphore,
    /// Conversations in which a full report is expected: what guests send waits in the kernel.
    pub expected: Semaphore,
    /// Reports that are being understood: no more than there are processors.
    pub hands: Semaphore,
    /// Bytes that stalled guests may hold.
    stalled: Semaphore,
    /// Mutual TLS, where guests ask for it.
    tls: Option<ClientTls>,
}

impl Lanes {
    /// With this many transfers at a time.
    pub fn new(transfers: usize, tls: Option<ClientTls>) -> Self {
        Self {
            transfers: Semaphore::new(transfers),
            expected: Semaphore::new(512),
            hands: Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)),
            stalled: Semaphore::new(MOST_STALLED as usize),
            tls,
        }
    }
}

/// What a guest said.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Whether it can hold a wait.
    pub waits: bool,
    /// Which machine it is, if it says so.
    pub guest_id: Option<GuestId>,
    /// A report, or word that nothing changed.
    pub report: Option<Box<Envelope<'a>>>,
}

/// The bytes of an answer, and for longer ones the transfer that they occupy until it is dropped.
pub type Received<'a> = (Vec<u8>, Option<SemaphorePermit<'a>>);

/// Asks a guest, and gives the bytes of its answer. Takes as long as the deadlines above allow.
pub async fn converse<'a>(
    address: &DialAddress,
    ask: Ask,
    known: Option<Known>,
    lanes: &'a Lanes,
) -> Result<Received<'a>, Failure> {
    // Dialing and reading have large states of their own; waiting, in which ten thousand are, none.
    let mut stream = timeout(DIAL, Box::pin(dial(address, lanes)))
        .await
        .map_err(|_| Failure::DialTimeout)??;
    let patience = match ask {
        Ask::Wait(time) => time + GRACE,
        Ask::Full | Ask::Get => FIRST_BYTES,
    };
    let request = frame::encode(&request_for(ask, known));
    let len = timeout(patience, say_and_hear(&mut stream, &request))
        .await
        .map_err(|_| Failure::NoAnswer)??;
    timeout(BODY, Box::pin(read_body(&mut stream, len, lanes)))
        .await
        .map_err(|_| Failure::Stalled)?
}

async fn dial(address: &DialAddress, lanes: &Lanes) -> Result<Stream, Failure> {
    let stream = transport::dial(address)
        .await
        .map_err(|error| Failure::from_dial(&error))?;
    match &lanes.tls {
        Some(tls) => tls
            .connect(stream)
            .await
            .map_err(|error| Failure::Handshake(error.to_string())),
        None => Ok(stream),
    }
}

/// Sends the request, and hears how long the answer is.
async fn say_and_hear(stream: &mut Stream, request: &[u8]) -> Result<usize, Failure> {
    // A peer that closes without reading (busy) may break the pipe; its word may still be there.
    let _ = transport::write_frame(stream, request).await;
    transport::read_len(stream, wire::MAX_RESPONSE)
        .await
        .map_err(|error| match error {
            ReadError::Frame(_) => Failure::TooLarge,
            ReadError::Truncated => Failure::BrokenOff,
            ReadError::Closed | ReadError::Io(_) => Failure::ClosedEarly,
        })
}

async fn read_body<'a>(
    stream: &mut (impl AsyncRead + Unpin),
    len: usize,
    lanes: &'a Lanes,
) -> Result<Received<'a>, Failure> {
    let mut body = Vec::new();
    if len <= SMALL {
        read_some(stream, &mut body, len).await?;
        while body.len() < len {
            read_some(stream, &mut body, len).await?;
        }
        return Ok((body, None));
    }
    let mut transfer = lanes.transfers.acquire().await.ok();
    body.reserve(len.min(AT_ONCE));
    while body.len() < len {
        if let Ok(read) = timeout(STALL, read_some(stream, &mut body, len)).await {
            read?;
            continue;
        }
        drop(transfer.take());
        let held = u32::try_from(body.capacity()).unwrap_or(u32::MAX);
        let _room = lanes
            .stalled
            .try_acquire_many(held)
            .map_err(|_| Failure::Stalled)?;
        read_some(stream, &mut body, len).await?;
        transfer = lanes.transfers.acquire().await.ok();
    }
    Ok((body, transfer))
}

async fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    body: &mut Vec<u8>,
    len: usize,
) -> Result<(), Failure> {
    let step = STEP.min(len - body.len());
    if step == 0 {
        return Ok(());
    }
    body.reserve(step);
    let mut part = (&mut *stream).take(step as u64);
    match part.read_buf(body).await {
        Ok(0) | Err(_) => Err(Failure::BrokenOff),
        Ok(_) => Ok(()),
    }
}

fn request_for(ask: Ask, known: Option<Known>) -> VmServiceRequest {
    let known = known.filter(|_| ask != Ask::Full);
    let last_known_generation = known.map_or(0, |k| k.key.generation.get());
    let known_epoch = known.map_or(0, |k| k.key.epoch_or_zero());
    let known_digest = known.map_or_else(Vec::new, |k| k.digest.as_bytes().to_vec());
    let method = match ask {
        Ask::Full | Ask::Get => request::Method::GetReport(GetReport {
            last_known_generation,
            known_epoch,
            known_digest,
        }),
        Ask::Wait(time) => request::Method::WaitReport(WaitReport {
            last_known_generation,
            known_epoch,
            known_digest,
            timeout_ms: u32::try_from(time.as_millis()).unwrap_or(u32::MAX),
        }),
    };
    VmServiceRequest {
        meta: Some(RequestMeta::default()),
        method: Some(method),
    }
}

/// What the bytes of an answer mean. `row` is what is known of the guest; `ask` what was asked.
pub fn understand<'a>(
    bytes: &'a [u8],
    vm: &VmId,
    address: &DialAddress,
    row: &GuestRow,
    ask: Ask,
) -> Result<Answer<'a>, Failure> {
    let response = Response::decode(bytes).map_err(|_| Failure::Malformed)?;
    let meta = response.meta;
    let said = match response.payload {
        Some(Payload::Report(said)) => said,
        Some(Payload::Error(error)) => {
            return Err(match ErrorCode::try_from(error.code) {
                Ok(ErrorCode::Busy) => Failure::Busy,
                Ok(ErrorCode::NotReady) => Failure::NotReady,
                Ok(ErrorCode::UnknownMethod) => Failure::UnknownMethod,
                _ => Failure::AgentError(error.message.chars().take(200).collect()),
            });
        }
        None => return Err(Failure::Malformed),
    };
    let guest_id = meta
        .facts
        .get(facts::GUEST_ID)
        .and_then(|id| id.parse::<GuestId>().ok());
    let waits = meta
        .supported_methods
        .iter()
        .any(|m| m == method::WAIT_REPORT);
    let epoch = Epoch::new(meta.epoch);
    let generation = Generation::new(meta.report_generation);
    let generated_at = meta.report_generated_at.map(Into::into).unwrap_or_default();
    if said.unchanged {
        let claim = Claim {
            key: generation.map(|generation| ReportKey { epoch, generation }),
            digest: meta
                .facts
                .get(facts::REPORT_DIGEST)
                .and_then(|d| d.parse().ok()),
            guest_id: guest_id.as_ref(),
            generated_at,
        };
        if ask == Ask::Full || !claim.may_be(row) {
            return Err(Failure::FalseUnchanged);
        }
        return Ok(Answer {
            waits,
            guest_id,
            report: None,
        });
    }
    let index = said.index.ok_or(Failure::Malformed)?;
    let generation = generation.ok_or(Failure::Malformed)?;
    let content = facts::content_of(&meta.facts);
    let report = index.into_report(content).map_err(|error| match error {
        ReportError::Empty => Failure::EmptyReport,
        ReportError::Nameless { .. } => Failure::Malformed,
        ReportError::Unsuccessful(why) => Failure::ScanFailed(why.chars().take(200).collect()),
    })?;
    let envelope = Envelope {
        vm: vm.clone(),
        address: address.to_string(),
        guest_id: guest_id.clone(),
        key: ReportKey { epoch, generation },
        digest: report.digest(),
        trigger: Trigger::from_fact(meta.facts.get(facts::SCAN_TRIGGER).map(String::as_str)),
        generated_at,
        agent_version: meta.agent_version.chars().take(64).collect(),
        facts: bounded(meta.facts),
        report,
    };
    Ok(Answer {
        waits,
        guest_id,
        report: Some(Box::new(envelope)),
    })
}

/// What an agent says that has nothing new.
struct Claim<'a> {
    key: Option<ReportKey>,
    digest: Option<Digest>,
    guest_id: Option<&'a GuestId>,
    generated_at: crate::clock::WallTime,
}

impl Claim<'_> {
    /// Whether it can be true: an agent that restarted and counts anew, or another machine behind
    /// the same address, must not pass for the one that is known.
    fn may_be(&self, row: &GuestRow) -> bool {
        let Some(known) = row.known else {
            return false;
        };
        let same_machine = match (self.guest_id, &row.guest_id) {
            (Some(now), Some(then)) => now == then,
            _ => true,
        };
        let same_content = match self.digest {
            Some(digest) => digest == known.digest,
            None => self.key == Some(known.key),
        };
        let has_epoch = self.key.is_some_and(|key| key.epoch.is_some());
        let same_scan = has_epoch
            || self.digest.is_some()
            || self.generated_at == crate::clock::WallTime::default()
            || self.generated_at == row.generated_at;
        same_machine && same_content && same_scan
    }
}

/// Facts that are kept: enough for any agent, too few to fill a disk with.
fn bounded(facts: Facts) -> Facts {
    const MOST: usize = 64;
    const LONGEST: usize = 1024;
    facts
        .into_iter()
        .filter(|(name, value)| name.len() <= LONGEST && value.len() <= LONGEST)
        .take(MOST)
        .collect()
}

/// Whether an answer is short enough to be understood where it arrived.
pub fn is_small(bytes: &[u8]) -> bool {
    bytes.len() <= SMALL
}
