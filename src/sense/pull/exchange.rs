//! One conversation with a guest: dial, ask, hear the answer.
//!
//! ```text
//! dial ── request ──► header ──────────────► body ─────────► understood
//! 5 s                 10 s, or the wait      one of 20 transfers
//! ├── 30 s in all, of a wait from its answer on ─────────────┤
//! ```
//!
//! Whatever a guest does, or does not do, ends as one [`Failure`]. A guest that is slow in the middle
//! of its report gives its transfer back until it is whole, and one that does not begin to answer
//! within a second its turn to be asked, so that those that hang or drip never keep the others
//! waiting.

use super::failure::Failure;
use super::schedule::Ask;
use crate::report::{Trigger, facts};
use crate::sense::limits::{ConcurrencyLimits, Transfer, Urgency};
use crate::sense::queue::table::Echo;
use crate::transport::{self, DialAddress, ReadError, Stream};
use crate::wire::frame::FrameError;
use crate::wire::request::{self, Knowledge};
use crate::wire::{self, response};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

/// Longest time until there is a connection.
const DIAL: Duration = Duration::from_secs(5);

/// Longest time from there to the first bytes of an answer that is not waited for.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// A wait is given up this long after it should have been answered: a machine that was reset may
/// never close its side.
const GRACE: Duration = Duration::from_secs(10);

/// A guest that is well begins to answer within this time; one that has not holds up no other.
const PROMPT: Duration = Duration::from_secs(1);

/// Longest conversation; of a wait, from the first bytes of its answer on.
const WHOLE: Duration = Duration::from_secs(30);

/// A guest that needs longer than this for a [`STEP`] gives its transfer to another.
const SLOW: Duration = Duration::from_millis(100);

/// Answers up to this length are no transfers: they fit what arrives with the first read.
const SMALL: usize = 4 << 10;

/// So much of a longer answer is read before it has a transfer: what an agent says about its report
/// comes first, and whether it is urgent decides which transfer it gets. Ten thousand may have come
/// so far.
const HEAD: usize = 2 << 10;

/// Memory that a transfer takes at once for a body that was announced, in bytes.
const AT_ONCE: usize = 512 << 10;

/// An alert of TLS begins like this: record type and major version.
const TLS_ALERT: u32 = 0x1503;

/// A body is read in steps of this many bytes, so that memory follows what has arrived.
const STEP: usize = 64 << 10;

/// The bytes of an answer, and for longer ones the transfer that they occupy until it is dropped.
pub type Received = (Vec<u8>, Option<Transfer>);

/// Asks a guest, and gives the bytes of its answer. Takes as long as the deadlines above allow.
pub async fn converse(
    address: &DialAddress,
    ask: Ask,
    echo: &Echo,
    limits: &ConcurrencyLimits,
) -> Result<Received, Failure> {
    match ask {
        Ask::Wait(_) => {
            let (mut stream, len) = connect_and_request(address, ask, echo, limits).await?;
            listen(&mut stream, len, limits, None).await
        }
        Ask::Full | Ask::Get => {
            let mut turn = match ask {
                Ask::Full => limits.full_pulls.acquire().await.ok(),
                Ask::Get | Ask::Wait(_) => None,
            };
            let waiting = Waiting::default();
            let talk = async {
                let said = connect_and_request(address, ask, echo, limits);
                let (mut stream, len) = release_slot_after(&mut turn, said).await?;
                read_body(&mut stream, len, limits, turn, &waiting).await
            };
            let talk = Box::pin(timeout(WHOLE, talk));
            talk.await.map_err(|_| waiting.failure())?
        }
    }
}

/// Waits for a guest, and lets another have its turn when it needs longer than one that is well.
async fn release_slot_after<T>(
    turn: &mut Option<SemaphorePermit<'_>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    match timeout(PROMPT, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            turn.take();
            work.await
        }
    }
}

/// Dials, says what is asked, and hears how long the answer is.
async fn connect_and_request(
    address: &DialAddress,
    ask: Ask,
    echo: &Echo,
    limits: &ConcurrencyLimits,
) -> Result<(Stream, usize), Failure> {
    // Dialing and reading have large states of their own; waiting, in which ten thousand are, none.
    let mut stream = timeout(DIAL, Box::pin(dial(address, limits)))
        .await
        .map_err(|_| Failure::DialTimeout)??;
    let limit = match ask {
        Ask::Wait(time) => time + GRACE,
        Ask::Full | Ask::Get => FIRST_BYTES,
    };
    let request = request_for(ask, echo);
    let len = timeout(limit, exchange_lengths(&mut stream, &request, limits))
        .await
        .map_err(|_| Failure::NoAnswer)??;
    Ok((stream, len))
}

/// Reads the answer, however long that may take.
async fn listen(
    stream: &mut Stream,
    len: usize,
    limits: &ConcurrencyLimits,
    turn: Option<SemaphorePermit<'_>>,
) -> Result<Received, Failure> {
    let waiting = Waiting::default();
    timeout(
        WHOLE,
        Box::pin(read_body(stream, len, limits, turn, &waiting)),
    )
    .await
    .map_err(|_| waiting.failure())?
}

/// Whether an exchange waits for a place or memory of this sensor, and not for its guest.
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

async fn dial(address: &DialAddress, limits: &ConcurrencyLimits) -> Result<Stream, Failure> {
    let stream = transport::dial(address)
        .await
        .map_err(|error| Failure::from_dial(&error))?;
    match &limits.tls {
        Some(tls) => tls
            .connect(stream)
            .await
            .map_err(|error| Failure::Handshake(error.to_string().as_str().into())),
        None => Ok(stream),
    }
}

/// Sends the request, and reads the length of the answer.
async fn exchange_lengths(
    stream: &mut Stream,
    request: &[u8],
    limits: &ConcurrencyLimits,
) -> Result<usize, Failure> {
    // A peer that closes without reading (busy) may break the pipe; its word may still be there.
    let _ = transport::write_frame(stream, request).await;
    transport::read_len(stream, wire::MAX_RESPONSE)
        .await
        .map_err(|error| match error {
            ReadError::Frame(FrameError::TooLarge { announced, .. }) => match announced >> 16 {
                TLS_ALERT if limits.tls.is_none() => {
                    let said = "the guest wants TLS, and this sensor has no --tls-cert";
                    Failure::Handshake(said.into())
                }
                _ => Failure::TooLarge,
            },
            ReadError::Truncated => Failure::BrokenOff,
            // The guest's TLS looks at our certificate after our side is done.
            ReadError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let said = format!("the guest refused our certificate: {error}");
                Failure::Handshake(said.as_str().into())
            }
            ReadError::Closed | ReadError::Io(_) => Failure::ClosedEarly,
        })
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    len: usize,
    limits: &ConcurrencyLimits,
    turn: Option<SemaphorePermit<'_>>,
    waiting: &Waiting,
) -> Result<Received, Failure> {
    let mut body = Vec::new();
    if len <= SMALL {
        read_up_to(stream, &mut body, len).await?;
        return Ok((body, None));
    }
    match timeout(SLOW, read_up_to(stream, &mut body, HEAD)).await {
        Ok(read) => read?,
        Err(_) => {
            drop(turn);
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
                drop((transfer, turn));
                return read_slowly(stream, body, len, limits, waiting).await;
            }
        }
    }
    Ok((body, Some(transfer)))
}

/// What the beginning of an answer says of its haste. A guest may lie: it has one exchange at a
/// time like everybody, and routine reports have places that no urgent one takes.
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
) -> Result<Received, Failure> {
    let bytes = u32::try_from(len.max(body.capacity())).unwrap_or(u32::MAX);
    let room = limits.slow_memory.try_acquire_many(bytes);
    let _room = room.map_err(|_| Failure::OutOfRoom)?;
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

/// The frame of a request. The agent gets back what it said of its report, as it said it: a digest that
/// this sensor computed may be of another form, and would never match.
fn request_for(ask: Ask, echo: &Echo) -> Vec<u8> {
    let known = match (ask, echo) {
        (Ask::Full, _) | (_, Echo::Nothing) => Knowledge::default(),
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
        Ask::Full | Ask::Get => None,
        Ask::Wait(time) => Some(time),
    };
    request::encode(known, wait)
}

#[cfg(test)]
mod tests {
    use super::super::schedule::PullOutcome;
    use super::*;
    use crate::report::Facts;
    use crate::wire::message::ResponseMeta;
    use crate::wire::meta::{self, REPORT_V1};
    use crate::wire::method;
    use std::path::PathBuf;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{UnixListener, UnixStream};
    use tokio::time::{Instant, sleep};

    /// What a guest sends, and whether it closes then or hangs.
    #[derive(Clone)]
    struct Says(Vec<u8>, bool);

    /// Loss prevented: a guest that hangs holds a connection, and what it knows, for ever.
    #[tokio::test(start_paused = true)]
    async fn each_way_to_hang_or_to_lie_has_its_own_name_and_its_own_end() {
        let get = Ask::Get;
        let wait = Ask::Wait(Duration::from_secs(45));
        let frame = |announced: u32, sent: usize| {
            let mut bytes = announced.to_be_bytes().to_vec();
            bytes.resize(4 + sent, 0);
            bytes
        };
        let long = 100_000;
        for (ask, says, closes, failure, seconds) in [
            (get, vec![], false, Failure::NoAnswer, 10),
            (get, vec![0, 0], false, Failure::NoAnswer, 10),
            (get, frame(100, 50), false, Failure::Stalled, 30),
            (get, frame(long, 50_000), false, Failure::Stalled, 30),
            (wait, vec![], false, Failure::NoAnswer, 55),
            (get, vec![], true, Failure::ClosedEarly, 0),
            (wait, vec![], true, Failure::ClosedEarly, 0),
            (get, vec![0, 0], true, Failure::BrokenOff, 0),
            (get, frame(100, 50), true, Failure::BrokenOff, 0),
            (get, frame(long, 50_000), true, Failure::BrokenOff, 0),
            (get, frame(17 << 20, 0), false, Failure::TooLarge, 0),
        ] {
            let guest = Guest::start(Says(says.clone(), closes));
            let limits = ConcurrencyLimits::new(1, None);
            let started = Instant::now();
            let result = converse(&guest.address, ask, &Echo::Nothing, &limits).await;
            let what = format!("{ask:?}, {} bytes, closes: {closes}", says.len());
            assert_eq!(result.map(|(bytes, _)| bytes.len()), Err(failure), "{what}");
            assert_eq!(started.elapsed().as_secs(), seconds, "{what}");
            assert_eq!(limits.free_transfers(), 1, "{what}");
        }
    }

    /// Found behind a hypervisor's socket: the `OK` line may never come.
    #[tokio::test(start_paused = true)]
    async fn a_hypervisor_that_never_greets_is_given_up() {
        let guest = Guest::start(Says(vec![], false));
        let DialAddress::Unix(path) = guest.address.clone() else {
            unreachable!()
        };
        let address = DialAddress::Hybrid { path, port: 818 };
        let started = Instant::now();
        let limits = ConcurrencyLimits::new(1, None);
        let result = converse(&address, Ask::Get, &Echo::Nothing, &limits).await;
        assert_eq!(result.map(drop), Err(Failure::DialTimeout));
        assert_eq!(started.elapsed().as_secs(), DIAL.as_secs());
    }

    /// Loss prevented: a guest that is well is called stalled, and left alone for up to half an hour,
    /// because this sensor has no room for it.
    #[tokio::test(start_paused = true)]
    async fn a_guest_for_which_there_is_no_room_is_asked_again_soon() {
        let whole = [&50_000u32.to_be_bytes()[..], &[0; 50_000]].concat();
        let guest = Guest::start(Says(whole, false));
        let limits = ConcurrencyLimits::new(1, None);
        let taken = limits.transfer(1, Urgency::Routine).await;
        for ask in [Ask::Get, Ask::Wait(Duration::from_secs(45))] {
            let result = converse(&guest.address, ask, &Echo::Nothing, &limits).await;
            assert_eq!(result.map(drop), Err(Failure::OutOfRoom));
        }
        drop(taken);
        let slow = Guest::drip(100_000);
        limits
            .slow_memory
            .forget_permits(limits.slow_memory.available_permits());
        let result = converse(&slow.address, Ask::Get, &Echo::Nothing, &limits).await;
        assert_eq!(result.map(drop), Err(Failure::OutOfRoom));
        assert_eq!(Failure::OutOfRoom.next_step(Ask::Get), PullOutcome::Busy);
    }

    /// Loss prevented: twenty guests that send a byte now and then keep all others waiting.
    #[tokio::test(start_paused = true)]
    async fn a_guest_that_drips_keeps_no_transfer_from_another() {
        let slow = Guest::drip(100_000);
        let quick = Guest::start(Says(
            [&50_000u32.to_be_bytes()[..], &[0; 50_000]].concat(),
            false,
        ));
        let limits = ConcurrencyLimits::new(1, None);
        let started = Instant::now();
        let dripping = converse(&slow.address, Ask::Get, &Echo::Nothing, &limits);
        let other = async {
            // By now the slow one has the only transfer.
            sleep(SLOW / 2).await;
            for _ in 0..20 {
                let (bytes, transfer) = converse(&quick.address, Ask::Get, &Echo::Nothing, &limits)
                    .await
                    .unwrap();
                assert!(bytes.len() == 50_000 && transfer.is_some());
            }
            started.elapsed()
        };
        let (dripped, other) = tokio::join!(dripping, other);
        assert!(other < Duration::from_secs(1), "{other:?}");
        assert_eq!(dripped.map(drop), Err(Failure::Stalled));
        assert_eq!(started.elapsed().as_secs(), WHOLE.as_secs());
    }

    /// Loss prevented: as many hung guests as are asked at a time keep all others from being asked.
    #[tokio::test(start_paused = true)]
    async fn a_guest_that_hangs_keeps_no_turn_from_another() {
        let mut half = 50_000u32.to_be_bytes().to_vec();
        half.resize(20_000, 0);
        let whole = [&50_000u32.to_be_bytes()[..], &[0; 50_000]].concat();
        let quick = Guest::start(Says(whole, false));
        for says in [vec![], half] {
            let hung = Guest::start(Says(says, false));
            let limits = ConcurrencyLimits::new(1, None);
            limits
                .full_pulls
                .forget_permits(limits.full_pulls.available_permits() - 1);
            let started = Instant::now();
            let hanging = converse(&hung.address, Ask::Full, &Echo::Nothing, &limits);
            let other = async {
                tokio::task::yield_now().await;
                assert_eq!(
                    limits.full_pulls.available_permits(),
                    0,
                    "the turn is taken"
                );
                let answer = converse(&quick.address, Ask::Full, &Echo::Nothing, &limits).await;
                assert!(answer.is_ok());
                started.elapsed()
            };
            let (hung, other) = tokio::join!(hanging, other);
            assert!(other <= PROMPT + SLOW, "{other:?}");
            assert!(hung.is_err() && started.elapsed() >= FIRST_BYTES);
        }
    }

    /// Loss prevented: what agents say about their reports outgrows the head, and news is no more
    /// urgent than anything else.
    #[test]
    fn the_head_of_an_answer_says_whether_it_is_urgent() {
        let names = facts::CONTENT.into_iter().chain([
            facts::REPORT_DIGEST,
            facts::LAST_SCAN_AT,
            facts::GUEST_ID,
            facts::DIGEST_FORM,
            facts::PROVENANCE,
            facts::LAST_INDEX_ERROR_AT,
        ]);
        // As long as the longest of them, the digest.
        let mut all: Facts = names.map(|n| (n.to_owned(), "x".repeat(71))).collect();
        all.insert(facts::LAST_INDEX_ERROR.into(), "x".repeat(250));
        let mut answer = |trigger: &str| {
            all.insert(facts::SCAN_TRIGGER.into(), trigger.into());
            let meta = ResponseMeta {
                agent_version: "1.22.333-rc.4444".into(),
                report_generated_at: Some(crate::clock::wall_now().into()),
                report_generation: u32::MAX,
                supported_methods: vec![method::GET_REPORT.into(), method::WAIT_REPORT.into()],
                epoch: u32::MAX,
                facts: all.clone(),
                mapping_hash: Some("0123456789abcdef".into()),
                update_path: 1,
                capabilities: vec![REPORT_V1.into()],
            };
            let mut bytes = meta::encode(&meta, Some("4294967295:4294967295:0123456789abcdef"));
            let end = bytes.len();
            bytes.resize(100_000, 0xff);
            (bytes, end)
        };
        let ((news, end), (routine, _)) = (answer("reactive"), answer("scheduled"));
        assert_eq!(urgency_of(&news[..HEAD]), Urgency::Reactive);
        assert_eq!(urgency_of(&routine[..HEAD]), Urgency::Routine);
        for cut in 0..HEAD {
            // The whole of it, or nothing: what is cut off is not guessed.
            assert_eq!(urgency_of(&news[..cut]) == Urgency::Reactive, cut >= end);
            assert_eq!(urgency_of(&news[cut..]) == Urgency::Reactive, cut == 0);
        }
    }

    struct Guest {
        address: DialAddress,
        task: tokio::task::JoinHandle<()>,
        _dir: tempfile::TempDir,
    }

    impl Guest {
        fn start(says: Says) -> Self {
            Self::serve(move |mut stream: UnixStream| {
                let Says(bytes, closes) = says.clone();
                async move {
                    // The request: left unread, it would reset the connection.
                    let mut request = [0; 64];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(&bytes).await;
                    if !closes {
                        std::future::pending::<()>().await;
                    }
                }
            })
        }

        /// One byte every 200 ms.
        fn drip(announced: u32) -> Self {
            Self::serve(move |mut stream: UnixStream| async move {
                let _ = stream.write_all(&announced.to_be_bytes()).await;
                while stream.write_all(&[0]).await.is_ok() {
                    sleep(Duration::from_millis(200)).await;
                }
            })
        }

        fn serve<F>(talk: impl Fn(UnixStream) -> F + Send + 'static) -> Self
        where
            F: Future<Output = ()> + Send + 'static,
        {
            let dir = tempfile::tempdir().unwrap();
            let path: PathBuf = dir.path().join("guest.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let task = tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(talk(stream));
                }
            });
            Self {
                address: DialAddress::Unix(path),
                task,
                _dir: dir,
            }
        }
    }

    impl Drop for Guest {
        fn drop(&mut self) {
            self.task.abort();
        }
    }
}
