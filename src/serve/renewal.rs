//! New epochs that the knowledge of peers demands: at most one a minute, and never during a scan.
//!
//! A peer that knows a report which this agent never made proves that the machine was put back to an
//! earlier state. A scan that is under way would give its report a key of the old epoch, so a new epoch
//! waits for its end, and the next scan for the new epoch.

use super::report_table::ReportRow;
use super::timer::Task;
use crate::store::StoreError;
use std::time::{Duration, Instant};
use tokio::task::JoinError;

/// Between two new epochs.
const PACE: Duration = Duration::from_secs(60);

/// The result of the task that begins one: the row of the newest report, if there is one.
pub(super) type Renewed = Result<Result<Option<ReportRow>, StoreError>, JoinError>;

/// Whether a new epoch is due, and the task that begins it.
#[derive(Default)]
pub(super) struct Renewal {
    pub(super) running: Task<Result<Option<ReportRow>, StoreError>>,
    requested: bool,
    last: Option<Instant>,
}

impl Renewal {
    /// Notes that a new epoch is requested; whether there will be one, since they are limited.
    pub(super) fn want(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now >= last + PACE);
        if is_due {
            (self.requested, self.last) = (true, Some(now));
        }
        is_due
    }

    /// Whether one is requested: then it begins now.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.requested)
    }

    /// Whether no scan may begin.
    pub(super) fn is_under_way(&self) -> bool {
        self.running.is_running() || self.requested
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_new_epoch_is_begun_at_most_once_a_minute_and_keeps_scans_away() {
        let now = clock::now();
        let mut renewal = Renewal::default();
        assert!(!renewal.is_under_way());
        assert!(renewal.want(now) && renewal.is_under_way());
        assert!(!renewal.want(now + PACE / 2));
        assert!(renewal.take() && !renewal.take());
        assert!(!renewal.is_under_way());
        assert!(renewal.want(now + PACE));
    }
}
