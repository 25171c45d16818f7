//! Tests of dead letters.

use super::super::fixture::{arrived, pending, stored};
use super::super::policy::QueuePolicy;
use super::super::settlement::Settlement;
use super::super::sink_queue::NextDelivery;
use super::*;
use crate::clock;
use std::time::Duration;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Loss prevented: a sensor that is degraded for ever by a report of a guest that will never come back.
#[tokio::test]
async fn a_refused_report_of_a_week_ago_can_be_ended_and_one_that_was_not_refused_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let (pending, writer) = pending(dir.path(), QueuePolicy::default());
    let names = ["refused", "young", "waits"].map(|name| name.parse::<VmId>().unwrap());
    let [refused, young, waits] = &names;
    for vm in [refused, young] {
        pending
            .clone()
            .arrived(arrived(vm.as_str(), 1, "p"))
            .await
            .unwrap();
        let NextDelivery::Send(sent) = pending.only().next(clock::now()) else {
            panic!("nothing to send");
        };
        pending
            .only()
            .settled(&sent.vm, sent.report, Settlement::Refused, None);
    }
    pending
        .clone()
        .arrived(arrived("waits", 1, "p"))
        .await
        .unwrap();
    let long_ago = clock::wall_now().before(WEEK + Duration::from_secs(60));
    for vm in [refused, waits] {
        pending.only().state().details.get_mut(vm).unwrap().since = long_ago;
    }
    let week_ago = clock::wall_now().before(WEEK);
    assert_eq!(
        pending.only().refused_since_before(week_ago),
        *std::slice::from_ref(refused)
    );
    // A guest that is there is pulled again: its report waits for that.
    assert_eq!(pending.drop_dead(refused, false), 0);
    assert_eq!(pending.drop_dead(refused, true), 1);
    assert_eq!(pending.drop_dead(refused, true), 0, "it is gone");
    assert_eq!(pending.drop_dead(waits, true), 0, "it was not refused");
    assert_eq!(pending.only().refused_since_before(week_ago), []);
    drop(pending);
    writer.await.unwrap();
    let mut kept: Vec<_> = stored(dir.path())
        .slots
        .into_iter()
        .map(|(vm, _)| vm)
        .collect();
    kept.sort();
    assert_eq!(kept, [waits.clone(), young.clone()]);
}
