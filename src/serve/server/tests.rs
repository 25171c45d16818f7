//! Tests of the deadlines that peers have.

use super::*;
use crate::serve::admission::MAX_WAITS;
use crate::serve::mapping::UpdatePath;
use crate::serve::respond::Call;
use tokio::net::UnixStream;

/// An agent without a mapping.
const MAPPING: MappingState = MappingState {
    path: UpdatePath::Sensor,
    hash: None,
};

fn server() -> Server {
    let (_, published) = watch::channel(None);
    let (_, not_ready) = watch::channel(NotReady::EmptyDatabase);
    let (_, mapping) = watch::channel(MAPPING);
    let (_, stopping) = watch::channel(false);
    let (_, rules) = watch::channel(Rules {
        allow_cid: Vec::new(),
        deadline: Duration::from_secs(30),
        require_mapping: false,
    });
    let (rolled_back, _) = mpsc::channel(1);
    let (pushes, _) = mpsc::channel(1);
    Server::new(Shared {
        published,
        not_ready,
        mapping,
        stopping,
        rules,
        handshakes: Arc::default(),
        rolled_back,
        pushes,
    })
}

/// A connection whose peer reads nothing, and that takes nothing more.
fn clogged() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    while ours.try_write(&[0; 4096]).is_ok() {}
    (Stream::Unix(ours), theirs)
}

// The loss: connections of peers that never read, kept for as long as these like, until there are no
// places left.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_told_busy_no_longer_than_until_its_deadline() {
    let server = server();
    let mut waiting = Vec::new();
    for _ in 0..MAX_WAITS {
        let (mut place, taken_away) = server.admission.enter().await;
        assert!(place.request_received(clock::now()) && place.wait());
        waiting.push((place, taken_away));
    }
    let (mut stream, _peer) = clogged();
    let (mut place, _taken_away) = server.admission.enter().await;
    assert!(place.request_received(clock::now()));
    let asked = asked();
    let began = clock::now();
    let time = Duration::from_secs(3600);
    let deadline = Instant::from_std(began + Duration::from_secs(30));
    let waited = server.wait(&mut stream, &mut place, &asked, time, deadline);
    let waited = timeout(Duration::from_secs(600), waited).await;
    assert_eq!(waited, Ok(false), "it was told, or its time was over");
    assert_eq!(clock::now() - began, Duration::from_secs(30));
}

// The same of an answer, and of a refusal.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_given_its_answer_no_longer_than_until_its_deadline() {
    let server = server();
    let (mut place, _taken_away) = server.admission.enter().await;
    assert!(place.request_received(clock::now()));
    let asked = asked();
    let began = clock::now();
    let deadline = Instant::from_std(began + Duration::from_secs(30));
    let (mut stream, _peer) = clogged();
    server
        .answer(&mut stream, &mut place, &asked, deadline)
        .await;
    assert_eq!(clock::now() - began, Duration::from_secs(30));
    let (mut stream, _peer) = clogged();
    let refusal = Refusal::new(ErrorCode::MalformedRequest, "no request");
    let began = clock::now();
    reject_and_drain(
        &mut stream,
        &respond::refuse(&refusal, &MAPPING),
        Instant::from_std(began + Duration::from_secs(30)),
    )
    .await;
    assert_eq!(clock::now() - began, LINGER);
}

fn asked() -> Asked {
    match respond::understand(&waiting_request(), &MAPPING).unwrap() {
        Call::Report(asked) => asked,
        Call::Push { .. } => unreachable!("it asks for the report"),
    }
}

fn waiting_request() -> Vec<u8> {
    let known = crate::wire::request::Knowledge::default();
    let wait = Some(Duration::from_secs(3600));
    let frame = crate::wire::request::encode(known, wait);
    frame[crate::wire::frame::HEADER..].to_vec()
}
