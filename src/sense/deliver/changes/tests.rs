//! Tests of which events lead to a report that a sink accepted before.

use super::*;
use crate::report::{Epoch, Report};
use crate::sense::fleet::FleetLimits;
use crate::sense::fleet::fixture::{Rig, envelope, report, second};
use std::sync::Arc;

/// The types of the events for a sink that accepted this very report at that second.
fn events(log: Option<&ChangeLog>, sent: &Envelope<'_>, accepted_at: u64) -> Vec<String> {
    let accepted = DocumentId {
        key: sent.key,
        digest: sent.digest,
        facts: None,
    };
    let changes = Changes::read(log, sent, Some((accepted, second(accepted_at))));
    let events = changes.events("s", second(0)).unwrap();
    let type_of = |event: Event| {
        let event: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        event["type"].as_str().unwrap().to_owned()
    };
    events.into_iter().map(type_of).collect()
}

fn in_epoch<'a>(epoch: u32, at: u64, report: &'a Report) -> Envelope<'a> {
    let mut envelope = envelope("a", 1, at, report);
    envelope.key.epoch = Epoch::new(epoch);
    envelope
}

/// Loss prevented: Central took a report whose answer was lost, the guest went back, and no event leads back.
#[test]
fn a_report_that_was_accepted_before_is_a_state_where_the_log_breaks_off_since() {
    let [one, two] = ["bash 1-1", "bash 2-1"].map(|text| report(&[text]));
    let mut rig = Rig::new(FleetLimits::default());
    // Nothing leads from one epoch to another.
    let back = in_epoch(7, 3, &one);
    for envelope in [
        in_epoch(7, 1, &one),
        in_epoch(9, 2, &two),
        in_epoch(7, 3, &one),
    ] {
        rig.put(&envelope);
    }
    let log = ChangeLog::new(Arc::new(rig.store));
    assert_eq!(events(Some(&log), &back, 1), ["state"]);
    // It was accepted after it was seen the last time.
    assert_eq!(events(Some(&log), &back, 3), [""; 0]);
}

#[test]
fn a_report_that_was_accepted_before_is_no_event_where_the_log_has_nothing_since() {
    let one = report(&["bash 1-1"]);
    let sent = in_epoch(7, 1, &one);
    let log = ChangeLog::new(Arc::new(Rig::new(FleetLimits::default()).store));
    assert_eq!(events(Some(&log), &sent, 1), [""; 0]);
    assert_eq!(events(None, &sent, 1), [""; 0]);
}
