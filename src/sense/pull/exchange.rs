//! One exchange with a guest: dial, request, response.
//!
//! ```text
//! dial ── request ──► header ──────────────► body ─────────► decoded
//! 5 s, or 15          10 s, or the wait      one of 20 transfers
//! ├── 30 s in all, of a wait from its answer on ─────────────┤
//! ```
//!
//! Whatever a guest does, or does not do, ends as one [`Failure`]. The exchange with a guest that is slow
//! in the middle of its report releases its transfer until the report is whole, and the exchange with
//! one that does not begin to answer within a second releases its slot among the full pulls, so that
//! guests that hang or drip never keep the others waiting.

use super::dial::Dial;
use super::failure::Failure;
use super::schedule::Ask;
use crate::report::{Trigger, facts};
use crate::sense::limits::{ConcurrencyLimits, Transfer, Urgency};
use crate::sense::queue::table::Echo;
use crate::transport::{self, DialAddress, ReadError, Stream};
use crate::wire::request::{self, Knowledge};
use crate::wire::{self, response};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

/// Longest time from there to the first bytes of an answer that is not waited for.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// A wait is given up this long after it should have been answered: a machine that was reset may
/// never close its side.
const GRACE: Duration = Duration::from_secs(10);

/// A guest that is well begins to answer within this time; one that has not holds no slot.
const PROMPT: Duration = Duration::from_secs(1);

/// Longest exchange; of a wait, from the first bytes of its answer on.
const WHOLE: Duration = Duration::from_secs(30);

/// A guest that needs longer than this for a [`STEP`] gives its transfer to another.
const SLOW: Duration = Duration::from_millis(100);

/// Answers up to this length are no transfers: they fit what arrives with the first read.
const SMALL: usize = 4 << 10;

/// So much of a longer answer is read before it has a transfer: the agent's metadata come first, and
/// whether the report is urgent decides which transfer it gets. Ten thousand exchanges may be here.
const HEAD: usize = 2 << 10;

/// Memory that a transfer takes at once for a body that was announced, in bytes.
const AT_ONCE: usize = 512 << 10;

/// A body is read in steps of this many bytes, so that memory follows what has arrived.
const STEP: usize = 64 << 10;

/// An answer.
pub struct Received {
    /// As it came.
    pub bytes: Vec<u8>,
    /// For longer ones, the transfer that the bytes occupy until it is dropped.
    pub transfer: Option<Transfer>,
    /// The guest that the agent's certificate is made out to, where it has to name one.
    pub certified: Option<String>,
}

/// The bytes of an answer and their transfer.
type Body = (Vec<u8>, Option<Transfer>);

/// Requests a report from a guest, and gives the bytes of the answer. Takes as long as the deadlines
/// above allow.
///
/// # Errors
/// There is no answer that can be decoded; each way to fail has a name.
pub async fn pull(
    dial: &dyn Dial,
    address: &DialAddress,
    ask: Ask,
    echo: &Echo,
    limits: &ConcurrencyLimits,
) -> Result<Received, Failure> {
    let _seat = dial.admit(address).await;
    match ask {
        Ask::Wait(_) => {
            let (mut stream, len) = connect_and_request(dial, address, ask, echo).await?;
            let body = read_response(&mut stream, len, limits).await?;
            Ok(Received::new(body, &stream, dial))
        }
        Ask::Full | Ask::Refresh | Ask::Get => {
            let mut slot = match ask.is_full() {
                true => limits.full_pulls.acquire().await.ok(),
                false => None,
            };
            let waiting = Waiting::default();
            let exchange = async {
                let header = connect_and_request(dial, address, ask, echo);
                let (mut stream, len) = release_slot_after(PROMPT, &mut slot, header).await?;
                let body = read_body(&mut stream, len, limits, slot, &waiting).await?;
                Ok(Received::new(body, &stream, dial))
            };
            let exchange = Box::pin(timeout(WHOLE, exchange));
            exchange.await.map_err(|_| waiting.failure())?
        }
    }
}

impl Received {
    fn new((bytes, transfer): Body, stream: &Stream, dial: &dyn Dial) -> Self {
        let certified = dial.demands_guest_name().then(|| stream.certified_guest());
        Self {
            bytes,
            transfer,
            certified: certified.flatten(),
        }
    }
}

/// Runs `work`; releases the slot once that takes longer than `time`.
async fn release_slot_after<T>(
    time: Duration,
    slot: &mut Option<SemaphorePermit<'_>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    match timeout(time, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            slot.take();
            work.await
        }
    }
}

/// Dials, sends the request, and reads how long the answer is. Where there is another way, it is tried once.
async fn connect_and_request(
    dial: &dyn Dial,
    address: &DialAddress,
    ask: Ask,
    echo: &Echo,
) -> Result<(Stream, usize), Failure> {
    let mut result = connect_and_request_once(dial, address, ask, echo).await;
    if let Err(failure) = &result
        && dial.tries_otherwise(address, failure)
    {
        result = connect_and_request_once(dial, address, ask, echo).await;
        if let Err(failure) = &result {
            dial.tries_otherwise(address, failure);
        }
    }
    if result.is_ok() {
        dial.answered(address);
    }
    result.map_err(|failure| dial.explain(address, failure))
}

async fn connect_and_request_once(
    dial: &dyn Dial,
    address: &DialAddress,
    ask: Ask,
    echo: &Echo,
) -> Result<(Stream, usize), Failure> {
    // Dialing and reading have large states of their own; waiting, in which ten thousand are, none.
    let mut stream = timeout(dial.dial_deadline(address), dial.dial(address))
        .await
        .map_err(|_| Failure::DialTimeout)??;
    let limit = match ask {
        Ask::Wait(time) => time + GRACE,
        Ask::Full | Ask::Refresh | Ask::Get => FIRST_BYTES,
    };
    let request = request_for(ask, echo);
    let len = timeout(
        limit,
        exchange_lengths(&mut stream, &request, dial.has_tls()),
    )
    .await
    .map_err(|_| Failure::NoAnswer)??;
    Ok((stream, len))
}

/// Reads the answer to a wait.
async fn read_response(
    stream: &mut Stream,
    len: usize,
    limits: &ConcurrencyLimits,
) -> Result<Body, Failure> {
    let waiting = Waiting::default();
    let body = Box::pin(read_body(stream, len, limits, None, &waiting));
    let read = timeout(WHOLE, body).await;
    read.map_err(|_| waiting.failure())?
}

/// Whether an exchange waits for a permit or memory of this sensor, and not for its guest.
#[derive(Default)]
struct Waiting(AtomicBool);

impl Waiting {
    async fn transfer(&self, limits: &ConcurrencyLimits, len: usize, urgency: Urgency) -> Transfer {
        self.0.store(true, Relaxed);
        let transfer = limits.transfer(len, urgency).await;
        self.0.store(false, Relaxed);
        transfer
    }

    /// What it means that the time is over.
    fn failure(&self) -> Failure {
        match self.0.load(Relaxed) {
            true => Failure::OutOfRoom,
            false => Failure::Stalled,
        }
    }
}

/// Sends the request, and reads the length of the answer.
async fn exchange_lengths(
    stream: &mut Stream,
    request: &[u8],
    has_tls: bool,
) -> Result<usize, Failure> {
    // A peer that closes without reading (busy) may break the pipe; its answer may still be there.
    let _ = transport::write_frame(stream, request).await;
    transport::read_len(stream, wire::MAX_RESPONSE)
        .await
        .map_err(|error| match error {
            ReadError::Frame(error) if error.is_tls_alert() && !has_tls => {
                let said = "the guest wants TLS, and this sensor has no --tls-cert";
                Failure::Handshake(said.into())
            }
            // The guest's TLS looks at our certificate after our side is done.
            ReadError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let said = format!("the guest refused our certificate: {error}");
                Failure::Handshake(said.as_str().into())
            }
            error => Failure::from_read(&error),
        })
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    len: usize,
    limits: &ConcurrencyLimits,
    slot: Option<SemaphorePermit<'_>>,
    waiting: &Waiting,
) -> Result<Body, Failure> {
    let mut body = Vec::new();
    if len <= SMALL {
        read_up_to(stream, &mut body, len).await?;
        return Ok((body, None));
    }
    match timeout(SLOW, read_up_to(stream, &mut body, HEAD)).await {
        Ok(read) => read?,
        Err(_) => {
            drop(slot);
            return read_slowly(stream, body, len, limits, waiting).await;
        }
    }
    let transfer = waiting.transfer(limits, len, urgency_of(&body)).await;
    body.reserve(len.min(AT_ONCE));
    while body.len() < len {
        let next = len.min(body.len() + STEP);
        match timeout(SLOW, read_up_to(stream, &mut body, next)).await {
            Ok(read) => read?,
            Err(_) => {
                drop((transfer, slot));
                return read_slowly(stream, body, len, limits, waiting).await;
            }
        }
    }
    Ok((body, Some(transfer)))
}

/// How urgent an answer is, by its beginning. A guest may lie: it has one exchange at a time like
/// everybody, and routine reports have transfers that no urgent one takes.
fn urgency_of(head: &[u8]) -> Urgency {
    Urgency::of_change(response::leading_meta(head).is_some_and(|meta| {
        let trigger = meta.facts.get(facts::SCAN_TRIGGER).map(String::as_str);
        Trigger::from_fact(trigger) == Trigger::Reactive
    }))
}

/// Reads the rest of a body without a transfer, which is taken when all of it is here.
async fn read_slowly(
    stream: &mut (impl AsyncRead + Unpin),
    mut body: Vec<u8>,
    len: usize,
    limits: &ConcurrencyLimits,
    waiting: &Waiting,
) -> Result<Body, Failure> {
    let bytes = u32::try_from(len.max(body.capacity())).unwrap_or(u32::MAX);
    let memory = limits.slow_memory.try_acquire_many(bytes);
    let _memory = memory.map_err(|_| Failure::OutOfRoom)?;
    while body.len() < len {
        let next = len.min(body.len() + STEP);
        read_up_to(stream, &mut body, next).await?;
    }
    let transfer = waiting.transfer(limits, len, urgency_of(&body)).await;
    Ok((body, Some(transfer)))
}

/// Reads until the body has this length. What has been read stays when this is given up.
async fn read_up_to(
    stream: &mut (impl AsyncRead + Unpin),
    body: &mut Vec<u8>,
    len: usize,
) -> Result<(), Failure> {
    while body.len() < len {
        let missing = len - body.len();
        body.reserve(missing);
        let mut part = (&mut *stream).take(missing as u64);
        match part.read_buf(body).await {
            Ok(0) | Err(_) => return Err(Failure::BrokenOff),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The frame of a request. The agent gets back the name of its report as it sent it: a digest that this
/// sensor computed may be of another form, and would never match.
fn request_for(ask: Ask, echo: &Echo) -> Vec<u8> {
    let known = match (ask, echo) {
        (Ask::Full | Ask::Refresh, _) | (_, Echo::Nothing) => Knowledge::default(),
        (_, Echo::Token(token)) => Knowledge {
            token,
            ..Knowledge::default()
        },
        (_, Echo::Pair { key, digest }) => Knowledge {
            generation: key.generation.get(),
            epoch: key.epoch_or_zero(),
            digest: digest.as_ref().map_or(&[], |digest| digest.as_bytes()),
            token: "",
        },
    };
    let wait = match ask {
        Ask::Full | Ask::Refresh | Ask::Get => None,
        Ask::Wait(time) => Some(time),
    };
    request::encode(known, wait)
}

#[cfg(test)]
mod tests;
