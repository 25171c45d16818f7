//! Changes as they come, as server-sent events.
//!
//! ```text
//! id: 17                     number of the row of the change log; Last-Event-ID of who continues
//! event: change
//! data: {"number":17, ...}   as in /v1/changes
//!
//! event: accepted            a sink accepted the report of a change: no number of its own, and not stored
//! data: {"vm":"web-17", "report":"7:12", "sink":"default", "after_ms":143}
//!
//! : alive                    every 15 s, so that both ends notice when the other is gone
//! ```
//!
//! A stream reads the change log behind its number, one page at a time, and again when the log has grown. Its
//! peer sets the pace: what it does not read is not read from the log. A stream ends with its session, and after
//! an hour at the latest; a browser continues it by itself.

use crate::clock;
use crate::listen::ResponseBody;
use crate::sense::fleet::Fleet;
use crate::sense::fleet::query::{AnswerPage, FleetAnswer, FleetQuery, newest_change};
use crate::sense::questions::FleetQuestions;
use crate::web::Beside;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Streams at the same time.
const STREAMS: usize = 32;

/// Changes that are read at once.
const PAGE: usize = 100;

/// Between two looks at whether the log has grown.
const LOOK: Duration = Duration::from_millis(250);

/// Who continues is told of what was accepted so long before.
const BEFORE: Duration = Duration::from_secs(60);

/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a stream lasts.
const LONGEST: Duration = Duration::from_secs(3600);

/// Told at the beginning: how long a browser waits before it continues.
const BEGIN: &str = "retry: 2000\n\n";

/// The streams.
pub(super) struct ChangeStreams {
    questions: FleetQuestions,
    /// Shared with all other questions.
    beside: Arc<Beside>,
    places: Arc<Semaphore>,
}

impl ChangeStreams {
    pub(super) fn new(questions: FleetQuestions, beside: Arc<Beside>) -> Self {
        Self {
            questions,
            beside,
            places: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    /// Begins a stream behind this number, or with what comes from now on; `None`: there are too many.
    pub(super) fn begin(&self, after: Option<u64>, until: Instant) -> Option<ResponseBody> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (to, parts) = mpsc::channel(1);
        let stream = ChangeStream {
            questions: self.questions.clone(),
            beside: self.beside.clone(),
            after,
            to,
        };
        tokio::spawn(async move {
            let _place = place;
            let end = until.min(clock::now() + LONGEST);
            let closed = stream.to.clone();
            tokio::select! {
                _ = stream.run() => {}
                () = closed.closed() => {}
                () = clock::sleep_until(Some(end)) => {}
            }
        });
        Some(ResponseBody::Stream(parts))
    }
}

/// One of them.
struct ChangeStream {
    questions: FleetQuestions,
    beside: Arc<Beside>,
    after: Option<u64>,
    to: mpsc::Sender<Vec<u8>>,
}

impl ChangeStream {
    /// Runs until nobody reads any more; `None` also when the log cannot be read: who continues asks again.
    async fn run(mut self) -> Option<()> {
        let begin = self.after.is_none();
        let mut seen = self.rows();
        if begin {
            self.after = self.beside(newest).await?;
        }
        self.send(BEGIN.to_owned()).await?;
        let mut told = self.accepted_until(begin);
        let mut alive_at = clock::now() + HEARTBEAT;
        // At the beginning there may be something behind the number already.
        let mut is_behind = true;
        loop {
            if is_behind {
                let after = self.after;
                let (events, next, more) =
                    self.beside(move |questions| page(questions, after)).await?;
                (self.after, is_behind) = (next, more);
                if !events.is_empty() {
                    self.send(events).await?;
                    alive_at = clock::now() + HEARTBEAT;
                    continue;
                }
            }
            let (events, next) = self.accepted_behind(told);
            told = next;
            if !events.is_empty() {
                self.send(events).await?;
                alive_at = clock::now() + HEARTBEAT;
            }
            if clock::now() >= alive_at {
                self.send(": alive\n\n".to_owned()).await?;
                alive_at = clock::now() + HEARTBEAT;
            }
            if !is_behind {
                tokio::time::sleep(LOOK).await;
                let rows = self.rows();
                is_behind = rows != seen;
                seen = rows;
            }
        }
    }

    /// Changes with every row that is written.
    fn rows(&self) -> Option<u64> {
        let fleet = self.questions.service.fleet();
        fleet.map(Fleet::next_change)
    }

    /// The number of acceptances behind which this stream tells of them.
    fn accepted_until(&self, is_new: bool) -> u64 {
        let Some(accepted) = self.questions.service.accepted() else {
            return 0;
        };
        match (is_new, clock::now().checked_sub(BEFORE)) {
            (false, Some(from)) => accepted.since(from),
            (true, _) | (false, None) => accepted.next(),
        }
    }

    /// Events of what sinks accepted behind this number, and the number behind them.
    fn accepted_behind(&self, number: u64) -> (String, u64) {
        let mut events = String::new();
        let Some(accepted) = self.questions.service.accepted() else {
            return (events, number);
        };
        let (reports, next) = accepted.behind(number);
        for report in reports {
            if let Ok(data) = serde_json::to_string(&report) {
                let _ = write!(events, "event: accepted\ndata: {data}\n\n");
            }
        }
        (events, next)
    }

    async fn send(&self, text: String) -> Option<()> {
        self.to.send(text.into_bytes()).await.ok()
    }

    async fn beside<T: Send + 'static>(
        &self,
        read: impl FnOnce(&FleetQuestions) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let questions = self.questions.clone();
        self.beside.read(move || read(&questions)).await.flatten()
    }
}

/// The number behind which changes are new.
fn newest(questions: &FleetQuestions) -> Option<Option<u64>> {
    let (_, last) = newest_change(&questions.store).ok()?;
    Some(last)
}

/// The events behind a number, the number behind which there are further ones, and whether there are now.
fn page(questions: &FleetQuestions, after: Option<u64>) -> Option<(String, Option<u64>, bool)> {
    let query = FleetQuery::Changes {
        since: None,
        vm: None,
        package: None,
        after,
    };
    let page = AnswerPage {
        after: None,
        limit: Some(PAGE),
    };
    let FleetAnswer::Changes(answer) = questions.ask(&query, &page) else {
        return None;
    };
    let mut events = String::new();
    for change in &answer.changes {
        let data = serde_json::to_string(change).ok()?;
        // JSON has no line breaks of its own.
        let _ = write!(
            events,
            "id: {}\nevent: change\ndata: {data}\n\n",
            change.number
        );
    }
    Some((events, answer.next, answer.more))
}
