//! The row of a report that waits for its first delivery.

use afferent::clock::WallTime;
use afferent::report::Trigger;
use afferent::sense::queue::table::{DocumentId, QueuePlace, SlotRow};

pub fn slot(report: DocumentId, packages: u32) -> SlotRow {
    SlotRow {
        report,
        trigger: Trigger::Reactive,
        generated_at: WallTime::default(),
        since: WallTime::default(),
        packages,
        place: QueuePlace {
            reactive: None,
            routine: Some(1),
        },
        attempts: 0,
        not_before: WallTime::default(),
        demoted: false,
        dead: None,
        last_error: None,
    }
}
