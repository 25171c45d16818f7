//! Tests of exchanges with guests that hang, drip, lie or close.

use super::super::dial::DIAL;
use super::super::dial::Dialer;
use super::super::schedule::PullOutcome;
use super::*;
use crate::clock;
use crate::report::Facts;
use crate::wire::message::ResponseMeta;
use crate::wire::meta::{self, REPORT_V1};
use crate::wire::method;
use std::path::PathBuf;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

/// Connects without TLS.
const DIALER: Dialer = Dialer {
    tls: None,
    kube: None,
};

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
        let limits = ConcurrencyLimits::new(1);
        let started = clock::now();
        let result = pull(&DIALER, &guest.address, ask, &Echo::Nothing, &limits).await;
        let what = format!("{ask:?}, {} bytes, closes: {closes}", says.len());
        assert_eq!(
            result.map(|received| received.bytes.len()),
            Err(failure),
            "{what}"
        );
        assert_eq!((clock::now() - started).as_secs(), seconds, "{what}");
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
    let started = clock::now();
    let limits = ConcurrencyLimits::new(1);
    let result = pull(&DIALER, &address, Ask::Get, &Echo::Nothing, &limits).await;
    assert_eq!(result.map(drop), Err(Failure::DialTimeout));
    assert_eq!((clock::now() - started).as_secs(), DIAL.as_secs());
}

/// Loss prevented: a guest that is well is called stalled, and left alone for up to half an hour,
/// because this sensor has no room for it.
#[tokio::test(start_paused = true)]
async fn a_guest_for_which_there_is_no_room_is_asked_again_soon() {
    let whole = [&50_000u32.to_be_bytes()[..], &[0; 50_000]].concat();
    let guest = Guest::start(Says(whole, false));
    let limits = ConcurrencyLimits::new(1);
    let taken = limits.transfer(1, Urgency::Routine).await;
    for ask in [Ask::Get, Ask::Wait(Duration::from_secs(45))] {
        let result = pull(&DIALER, &guest.address, ask, &Echo::Nothing, &limits).await;
        assert_eq!(result.map(drop), Err(Failure::OutOfRoom));
    }
    drop(taken);
    let slow = Guest::drip(100_000);
    limits
        .slow_memory
        .forget_permits(limits.slow_memory.available_permits());
    let result = pull(&DIALER, &slow.address, Ask::Get, &Echo::Nothing, &limits).await;
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
    let limits = ConcurrencyLimits::new(1);
    let started = clock::now();
    let dripping = pull(&DIALER, &slow.address, Ask::Get, &Echo::Nothing, &limits);
    let other = async {
        // By now the slow one has the only transfer.
        sleep(SLOW / 2).await;
        for _ in 0..20 {
            let Received {
                bytes, transfer, ..
            } = pull(&DIALER, &quick.address, Ask::Get, &Echo::Nothing, &limits)
                .await
                .unwrap();
            assert!(bytes.len() == 50_000 && transfer.is_some());
        }
        clock::now() - started
    };
    let (dripped, other) = tokio::join!(dripping, other);
    assert!(other < Duration::from_secs(1), "{other:?}");
    assert_eq!(dripped.map(drop), Err(Failure::Stalled));
    assert_eq!((clock::now() - started).as_secs(), WHOLE.as_secs());
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
        let limits = ConcurrencyLimits::new(1);
        limits
            .full_pulls
            .forget_permits(limits.full_pulls.available_permits() - 1);
        let started = clock::now();
        let hanging = pull(&DIALER, &hung.address, Ask::Full, &Echo::Nothing, &limits);
        let other = async {
            tokio::task::yield_now().await;
            assert_eq!(
                limits.full_pulls.available_permits(),
                0,
                "the turn is taken"
            );
            let answer = pull(&DIALER, &quick.address, Ask::Full, &Echo::Nothing, &limits).await;
            assert!(answer.is_ok());
            clock::now() - started
        };
        let (hung, other) = tokio::join!(hanging, other);
        assert!(other <= PROMPT + SLOW, "{other:?}");
        assert!(hung.is_err() && (clock::now() - started) >= FIRST_BYTES);
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
