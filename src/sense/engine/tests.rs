//! Tests of the end of a part that must never end.

use super::*;
use crate::sense::deliver::outcome::Outcome;
use crate::sense::deliver::sink::{Delivering, Delivery};
use crate::sense::pull::dial::Dialer;
use crate::sense::queue::fixture::store;
use std::time::Duration;

/// Accepts everything.
struct Accepting;

impl Sink for Accepting {
    fn deliver(&self, _delivery: Delivery) -> Delivering<'_> {
        Box::pin(std::future::ready(Outcome::Accepted))
    }
}

/// Loss prevented: a sensor that looks well, and pulls, delivers or writes nothing any more.
#[tokio::test(start_paused = true)]
async fn the_end_of_any_loop_is_noticed_and_nothing_else_is() {
    let hour = Duration::from_secs(3600);
    type End = fn(&mut Engine);
    let chosen: [(End, &str); 4] = [
        (|engine| engine.pulling.abort(), "pulling"),
        (|engine| engine.delivering.abort_all(), "delivery"),
        (|engine| engine.pushing.abort(), "pushing of the mapping"),
        (|engine| engine.writing.abort(), "the writer of sense.redb"),
    ];
    for (end, name) in chosen {
        let dir = tempfile::tempdir().unwrap();
        let (_roster, roster) = watch::channel(KnownGuests::default());
        let mut engine = Engine::start(Parts {
            store: store(dir.path()),
            sinks: vec![SinkParts {
                name: SinkName::default(),
                sink: Arc::new(Accepting),
                policy: QueuePolicy::default(),
            }],
            dial: Arc::new(Dialer {
                tls: None,
                kube: None,
            }),
            roster,
            fleet: None,
            timing: Timing::new(hour, hour),
            mapping: None,
            sensor_id: "s".into(),
            blocking: Blocking::Inline,
            wall: WallClock::default(),
            metrics: Arc::new(Metrics::new()),
        })
        .unwrap();
        let waited = tokio::time::timeout(hour, engine.failed()).await;
        assert!(waited.is_err(), "nothing ended");
        end(&mut engine);
        let waited = tokio::time::timeout(hour, engine.failed()).await;
        let (what, ended) = waited.unwrap();
        assert!(what == name && ended.unwrap_err().is_cancelled(), "{what}");
    }
}
