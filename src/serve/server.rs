//! The pull server: one request a connection, within a deadline, from peers that are allowed.

use super::Config;
use super::admission::{Admission, Place};
use super::handshakes::Handshakes;
use super::listen::Acceptor;
use super::mapping::{MappingState, UpdatePath};
use super::pushed_mapping::Pushed;
use super::rate_limited_log::RateLimitedLog;
use super::refusal::{NotReady, Refusal};
use super::requests::{NoRequest, Received, ReceivedPush, Requests};
use super::respond::{self, Asked, Published, Verdict};
use crate::clock;
use crate::transport::{Listener, Peer, Refused, Stream, write_frame};
use crate::wire::message::ErrorCode;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A peer whose request was refused has this long to finish sending and to read why.
const LINGER: Duration = Duration::from_secs(2);

/// An answer is sent in parts of this size, each of which shows that the peer takes it.
const PART: usize = 32 << 10;

/// A request that is on its way when the service is told to stop has this long to arrive.
const GRACE: Duration = Duration::from_millis(500);

/// A peer that knows what this agent never made waits this long for a new epoch before it is answered.
const NEW_EPOCH: Duration = Duration::from_secs(2);

/// After an accept that failed (no descriptors left), until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What peers have to keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Machines that may ask over VSOCK.
    pub(super) allow_cid: Vec<u32>,
    /// Longest an exchange takes, the time of a wait not counted.
    pub(super) deadline: Duration,
    /// Whether reports are withheld until there is a mapping.
    pub(super) require_mapping: bool,
}

impl Rules {
    /// As they are configured.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            allow_cid: config.allow_cid.clone(),
            deadline: config.conn_deadline,
            require_mapping: config.require_mapping,
        }
    }
}

/// What connections see of the agent's loop, and tell it.
pub(super) struct Shared {
    /// The newest report; `None` before the first scan.
    pub(super) published: watch::Receiver<Option<Arc<Published>>>,
    /// Why there is none, as long as there is none.
    pub(super) not_ready: watch::Receiver<NotReady>,
    /// Which mapping is in use.
    pub(super) mapping: watch::Receiver<MappingState>,
    /// Turns true when the service ends.
    pub(super) stopping: watch::Receiver<bool>,
    /// May change while the service runs.
    pub(super) rules: watch::Receiver<Rules>,
    pub(super) handshakes: Arc<Handshakes>,
    /// Tells that a peer knows what this agent never made.
    pub(super) rolled_back: mpsc::Sender<()>,
    /// Takes mappings that peers push.
    pub(super) pushes: mpsc::Sender<Push>,
}

/// A mapping that a peer pushed, and where it is said what became of it.
pub(super) struct Push {
    pub(super) mapping: Vec<u8>,
    pub(super) reply: oneshot::Sender<Pushed>,
}

/// Answers on all addresses.
pub(super) struct Server {
    shared: Shared,
    admission: Admission,
    requests: Requests,
}

impl Server {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared,
            admission: Admission::default(),
            requests: Requests::default(),
        }
    }

    /// Accepts until the service stops, then until all that was asked is answered.
    pub(super) async fn accept_from(self: Arc<Self>, mut incoming: Incoming, door: Door) {
        let door = Arc::new(door);
        let mut stopping = self.shared.stopping.clone();
        let mut connections = JoinSet::new();
        let (mut strangers, mut failures) = (RateLimitedLog::default(), RateLimitedLog::default());
        loop {
            let accepted = tokio::select! {
                accepted = incoming.accept() => accepted,
                Some(ended) = connections.join_next() => {
                    tell_panic(ended);
                    continue;
                }
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            match accepted {
                Ok((stream, peer)) if self.allows(peer) => {
                    let (place, taken_away) = tokio::select! {
                        entered = self.admission.enter() => entered,
                        _ = stopping.wait_for(|stopping| *stopping) => break,
                    };
                    let caller = Caller {
                        door: Arc::clone(&door),
                        peer,
                        place,
                    };
                    let connection = Arc::clone(&self).connection(stream, caller, taken_away);
                    connections.spawn(connection);
                }
                Ok((_, peer)) => {
                    if strangers.is_due() {
                        tracing::warn!(%peer, "refused: neither --allow-cid nor the owner of this service lets it in");
                    }
                }
                Err(error) => {
                    if failures.is_due() {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(incoming);
        while let Some(ended) = connections.join_next().await {
            tell_panic(ended);
        }
    }

    fn deadline(&self) -> Duration {
        self.shared.rules.borrow().deadline
    }

    fn allows(&self, peer: Peer) -> bool {
        match peer {
            Peer::Cid(cid) => self.shared.rules.borrow().allow_cid.contains(&cid),
            Peer::Uid(uid) => uid == 0 || uid == nix::unistd::geteuid().as_raw(),
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: Stream,
        caller: Caller,
        mut taken_away: oneshot::Receiver<()>,
    ) {
        let Caller {
            door,
            peer,
            mut place,
        } = caller;
        let deadline = Instant::from_std(clock::now()) + self.deadline();
        let request = tokio::select! {
            request = timeout_at(deadline, self.listen_to(stream, &door, peer, deadline)) => request,
            _ = &mut taken_away => return,
            () = self.stopped_for(GRACE) => return,
        };
        // Otherwise no handshake, or silent until the deadline.
        let Ok(Some((mut stream, received))) = request else {
            return;
        };
        let received = match received {
            Ok(received) => received,
            Err(NoRequest::Refused(refusal)) => {
                let answer = respond::refuse(&refusal, &self.mapping());
                // Still one of those that give way.
                tokio::select! {
                    () = reject_and_drain(&mut stream, &answer, deadline) => {}
                    _ = taken_away => {}
                }
                return;
            }
            Err(NoRequest::Nothing | NoRequest::Tls) => return,
        };
        if !place.request_received(clock::now()) {
            return;
        }
        let asked = match received {
            Received::Report(asked) => asked,
            Received::Push(push) => {
                tokio::select! {
                    () = self.push(&mut stream, push) => {}
                    _ = taken_away => {}
                }
                return;
            }
        };
        let converse = async {
            let mut deadline = deadline;
            if let Some(time) = asked.wait {
                let waited = self.wait(&mut stream, &mut place, &asked, time, deadline);
                if !waited.await {
                    return;
                }
                place.waited(clock::now());
                deadline = Instant::from_std(clock::now()) + self.deadline();
            }
            self.answer(&mut stream, &mut place, &asked, deadline).await;
        };
        tokio::select! {
            () = converse => {}
            _ = taken_away => tracing::debug!("the peer did not take its answer; others came"),
        }
    }

    /// Ends some time after the service is told to stop: a peer that has not asked by then has
    /// nothing under way.
    async fn stopped_for(&self, time: Duration) {
        let _ = self
            .shared
            .stopping
            .clone()
            .wait_for(|stopping| *stopping)
            .await;
        sleep(time).await;
    }

    /// Shakes hands where that is asked for, and hears the peer out.
    async fn listen_to(
        &self,
        stream: Stream,
        door: &Door,
        peer: Peer,
        deadline: Instant,
    ) -> Option<(Stream, Result<Received<'_>, NoRequest>)> {
        let accepted = timeout_at(deadline, door.acceptor.accept(stream)).await;
        let mut stream = match accepted.unwrap_or_else(|_| Err(Refused::timed_out())) {
            Ok(stream) => stream,
            Err(refused) => {
                self.shared.handshakes.refused(&door.name, peer, &refused);
                return None;
            }
        };
        let received = self.requests.read(&mut stream, &self.mapping()).await;
        if let Err(NoRequest::Tls) = received {
            let refused = Refused::tls_on_plaintext();
            self.shared.handshakes.refused(&door.name, peer, &refused);
            return None;
        }
        Some((stream, received))
    }

    fn mapping(&self) -> MappingState {
        *self.shared.mapping.borrow()
    }

    /// Hands a pushed mapping to the agent's loop, and answers what became of it.
    async fn push(&self, stream: &mut Stream, push: ReceivedPush<'_>) {
        let ReceivedPush {
            mapping,
            is_report_v1,
            _permit,
        } = push;
        let kept = async {
            let (reply, answer) = oneshot::channel();
            let push = Push { mapping, reply };
            self.shared.pushes.send(push).await.ok()?;
            answer.await.ok()
        };
        let kept = tokio::select! {
            kept = timeout(self.deadline(), kept) => kept,
            () = self.stopped_for(GRACE) => return,
        };
        let refused = |code, error: String| Refusal::new(code, error).to(is_report_v1);
        let refusal = match kept {
            Ok(Some(Pushed::Updated(_))) => Ok(true),
            Ok(Some(Pushed::Same(_))) => Ok(false),
            Ok(Some(Pushed::Malformed(why))) => Err(refused(ErrorCode::MalformedRequest, why)),
            Ok(Some(Pushed::Failed(why))) => Err(refused(ErrorCode::Internal, why)),
            Ok(None) => return,
            Err(_) => {
                let why = "a scan that takes long keeps the mapping from being kept; push again";
                Err(refused(ErrorCode::Busy, why.into()))
            }
        };
        let answer = match &refusal {
            Ok(updated) => respond::synced(*updated, is_report_v1, &self.mapping()),
            Err(refusal) => respond::refuse(refusal, &self.mapping()),
        };
        let _ = timeout(self.deadline(), write_frame(stream, &answer)).await;
    }

    /// Why no report is given out, if mappings are required.
    fn withheld(&self, published: Option<&Published>) -> Option<Refusal> {
        let mapping = self.mapping();
        let is_required = self.shared.rules.borrow().require_mapping;
        if !is_required || mapping.path != UpdatePath::Sensor {
            return None;
        }
        if mapping.hash.is_none() {
            return Some(Refusal::mapping_required());
        }
        let is_unmapped = |published: &Published| published.mapping().hash.is_none();
        let is_new = published.is_some_and(is_unmapped);
        is_new.then(|| Refusal::not_ready(NotReady::MappingNew))
    }

    /// Waits until there is a report that the peer does not know, the time is over or the service
    /// stops. `false`: the peer is gone, or was told by `deadline` that too many wait. While the database
    /// is empty, the first report is waited for.
    async fn wait(
        &self,
        stream: &mut Stream,
        place: &mut Place,
        asked: &Asked,
        time: Duration,
        deadline: Instant,
    ) -> bool {
        let is_empty = *self.shared.not_ready.borrow() == NotReady::EmptyDatabase;
        let news = |published: &Option<Arc<Published>>| match published {
            _ if self.withheld(published.as_deref()).is_some() => true,
            Some(published) => published.compare(&asked.known) != Verdict::Same,
            None => !is_empty,
        };
        let mut published = self.shared.published.clone();
        if news(&published.borrow_and_update()) {
            return true;
        }
        if !place.wait() {
            let busy = Refusal::new(
                ErrorCode::Busy,
                "too many requests wait already; poll instead",
            )
            .to(asked.is_report_v1);
            let frame = respond::refuse(&busy, &self.mapping());
            let _ = timeout_at(deadline, write_frame(stream, &frame)).await;
            return false;
        }
        let mut stopping = self.shared.stopping.clone();
        tokio::select! {
            _ = published.wait_for(news) => true,
            () = sleep(time) => true,
            _ = stopping.wait_for(|stopping| *stopping) => true,
            () = gone(stream) => false,
        }
    }

    async fn answer(
        &self,
        stream: &mut Stream,
        place: &mut Place,
        asked: &Asked,
        deadline: Instant,
    ) {
        let is_report_v1 = asked.is_report_v1;
        let mut published = self.shared.published.borrow().clone();
        if let Some(refusal) = self.withheld(published.as_deref()) {
            let answer = respond::refuse(&refusal.to(is_report_v1), &self.mapping());
            let _ = timeout_at(deadline, write_frame(stream, &answer)).await;
            return;
        }
        let verdict = published.as_ref().map(|p| p.compare(&asked.known));
        if verdict == Some(Verdict::Impossible) {
            self.new_epoch(asked).await;
            published = self.shared.published.borrow().clone();
        }
        let sent = timeout_at(deadline, async {
            match published {
                None => {
                    let why = *self.shared.not_ready.borrow();
                    let refusal = Refusal::not_ready(why).to(is_report_v1);
                    write_frame(stream, &respond::refuse(&refusal, &self.mapping())).await
                }
                Some(published) if verdict == Some(Verdict::Same) => {
                    write_frame(stream, &published.unchanged(is_report_v1)).await
                }
                Some(published) => {
                    let (head, payload) = published.full(is_report_v1);
                    write_frame(stream, &head).await?;
                    for part in payload.chunks(PART) {
                        write_frame(stream, part).await?;
                        place.progressed(clock::now());
                    }
                    Ok(())
                }
            }
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the peer did not take its answer"),
            Err(_) => tracing::debug!("the peer did not take its answer in time"),
        }
    }
}

impl Server {
    /// Asks for a new epoch, and waits for it for a moment: there may be none, since they are limited.
    async fn new_epoch(&self, asked: &Asked) {
        // Full: somebody else has asked.
        let _ = self.shared.rolled_back.try_send(());
        let mut published = self.shared.published.clone();
        let begun = published.wait_for(|published| {
            published
                .as_ref()
                .is_none_or(|p| p.compare(&asked.known) != Verdict::Impossible)
        });
        let _ = timeout(NEW_EPOCH, begun).await;
    }
}

/// A connection whose task panicked is closed; the others go on.
fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended.map_err(|error| error.to_string()) {
        tracing::error!(error, "answering a peer broke off");
    }
}

/// Where connections come from.
pub(super) enum Incoming {
    /// A socket.
    Listener(Listener),
    /// Pipes in memory, each to the owner of this service.
    Memory(mpsc::Receiver<Stream>),
}

impl Incoming {
    /// The next connection. Safe to drop and call again.
    async fn accept(&mut self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Listener(listener) => listener.accept().await,
            Self::Memory(pipes) => match pipes.recv().await {
                Some(stream) => Ok((stream, Peer::Uid(nix::unistd::geteuid().as_raw()))),
                None => std::future::pending().await,
            },
        }
    }
}

/// An address that peers connect to.
pub(super) struct Door {
    /// The address, for messages.
    pub(super) name: String,
    pub(super) acceptor: Arc<Acceptor>,
}

/// A peer that connected.
struct Caller {
    door: Arc<Door>,
    peer: Peer,
    place: Place,
}

/// Returns when a peer that has asked does not wait any more. One that only says that it has nothing
/// more to say (shutdown(2) of its sending side) still listens.
async fn gone(stream: &mut Stream) {
    let mut nothing = [0; 1];
    match stream.read(&mut nothing).await {
        Ok(0) if stream.still_listens().await => std::future::pending().await,
        // What follows a request is no request.
        Ok(_) | Err(_) => {}
    }
}

/// Says what was wrong with a request. The peer may still be sending the rest of it, and closing
/// with bytes unread would break its connection before it reads the answer: so they are read, for a
/// moment, and thrown away.
async fn reject_and_drain(stream: &mut Stream, answer: &[u8], deadline: Instant) {
    let deadline = deadline.min(Instant::from_std(clock::now()) + LINGER);
    let _ = timeout_at(deadline, async {
        write_frame(stream, answer).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

#[cfg(test)]
mod tests;
