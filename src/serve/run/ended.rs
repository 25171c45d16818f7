//! What becomes of a scan that has ended, and of a new epoch.

use super::{AgentLoop, locked};
use crate::clock;
use crate::serve::mapping::{MappingState, UpdatePath};
use crate::serve::refusal::NotReady;
use crate::serve::renewal::Renewed;
use crate::serve::report_store::Recorded;
use crate::serve::rescan::Ended;
use crate::serve::respond::Published;
use crate::serve::scan_log::ScanResult;
use crate::serve::status;
use crate::serve::worker::{Kept, Outcome};
use std::sync::Arc;

impl AgentLoop {
    /// Takes the outcome into the status; gives whether it is the same trouble as before.
    fn remember(&self, outcome: &Outcome) -> bool {
        let mut status = locked(&self.status);
        let before = status.scan_error.clone();
        Kept {
            epoch: status.epoch,
            durable: status.durable,
            moved_aside: status.moved_aside,
            troubles: status.troubles,
        } = self.worker.kept();
        status.empty = None;
        match outcome {
            Outcome::Found(..) => {
                status.scans += 1;
                status.scan_error = None;
            }
            Outcome::Empty(what) => {
                status.scans += 1;
                status.scan_error = None;
                status.empty = Some(what.clone());
            }
            Outcome::ScanFailed(error) | Outcome::StoreFailed(error) => {
                status.failed_scans += 1;
                status.scan_error = Some(error.clone());
            }
            Outcome::Changing(_) => status.failed_scans += 1,
            Outcome::Overtaken => {}
        }
        if before.is_some() && status.scan_error.is_none() {
            tracing::info!("scans end well again");
        }
        before.is_some() && status.scan_error == before
    }

    /// For whoever asked for this scan.
    fn note_end(&self, result: ScanResult) {
        locked(&self.status).scan_log.end(result);
    }

    /// A peer knows a report that this agent never made.
    pub(super) fn rolled_back(&mut self) {
        if self.renewal.want(clock::now()) {
            self.renew();
        }
    }

    /// Begins a new epoch, when no scan is under way whose report would get a key of the old one, and no
    /// mapping is being kept.
    pub(super) fn renew(&mut self) {
        let is_free = !self.scan.is_running() && !self.pushes.running.is_running();
        if is_free && self.renewal.take() {
            let renew = self.worker.renew();
            self.renewal.running.start(self.blocking.spawn(renew));
        }
    }

    pub(super) fn renewed(&mut self, result: Renewed) {
        let row = match result {
            Ok(Ok(row)) => row,
            Ok(Err(error)) => {
                tracing::error!(%error, "a new epoch cannot be begun");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "a new epoch cannot be begun");
                return;
            }
        };
        let epoch = self.worker.kept().epoch;
        tracing::warn!(
            %epoch,
            "a peer knows a report that this agent never made: the machine was put back to an earlier state, a new epoch begins"
        );
        locked(&self.status).epoch = epoch;
        if let Some(row) = row {
            self.published.send_if_modified(|published| {
                *published = published.as_ref().map(|p| Arc::new(p.renamed(row)));
                true
            });
        }
        self.tell_status();
    }

    /// Which mapping is in use after a scan: a file is looked at by scans only.
    fn mapping_after(&self, outcome: &Outcome) -> MappingState {
        let mut state = *self.mapping_state.borrow();
        match (outcome, state.path) {
            (Outcome::Found(_, scan, _), UpdatePath::Url) => state.hash = scan.mapping,
            (_, UpdatePath::Sensor) => state.hash = self.worker.pushed_mapping(),
            _ => {}
        }
        self.set_mapping(state);
        state
    }

    pub(super) fn scanned(&mut self, outcome: Outcome) {
        let outcome = match outcome {
            // What was there before is not gone because a new database took its place.
            Outcome::Empty(what) if self.published.borrow().is_some() => Outcome::ScanFailed(what),
            outcome => outcome,
        };
        let is_told = self.remember(&outcome);
        let mapping = self.mapping_after(&outcome);
        let ended = match outcome {
            Outcome::Found(Recorded::New(stored), scan, changes) => {
                let guest_id = self.worker.guest_id();
                let published = Published::new(&stored, guest_id, scan, mapping);
                tracing::info!(
                    key = %published.key(),
                    trigger = stored.row.trigger.as_str(),
                    packages = stored.report.packages.len(),
                    changes = changes.as_ref().map(|changes| changes.summary.as_str()),
                    "new report"
                );
                if let Some(why) = published.too_large() {
                    tracing::error!(why, "the report cannot be sent");
                }
                self.published.send_replace(Some(Arc::new(published)));
                self.note_end(ScanResult::New(changes));
                Ended::Done
            }
            Outcome::Found(Recorded::Same, scan, _) => {
                self.published.send_if_modified(|published| {
                    *published = published.as_ref().map(|p| Arc::new(p.scanned_again(scan)));
                    // Nobody waits for this: it is no other report.
                    false
                });
                self.note_end(ScanResult::Same);
                Ended::Done
            }
            Outcome::Overtaken => Ended::Overtaken,
            Outcome::Changing(error) => {
                if self.rescan.changing() + 1 == status::MANY {
                    tracing::warn!(error, "scans follow one another ever more slowly");
                }
                Ended::Changing
            }
            Outcome::Empty(what) => {
                if self.not_ready.send_replace(NotReady::EmptyDatabase) != NotReady::EmptyDatabase {
                    tracing::info!(what, "the first package is waited for");
                }
                self.note_end(ScanResult::Failed(what));
                Ended::Done
            }
            Outcome::ScanFailed(error) => {
                self.not_ready.send_replace(NotReady::ScanFailed);
                self.published.send_if_modified(|published| {
                    let at = self.wall.now();
                    *published = published
                        .as_ref()
                        .map(|p| Arc::new(p.not_scanned(&error, at)));
                    // It is no other report.
                    false
                });
                if !is_told {
                    tracing::warn!(error, "scan failed; the last report stays");
                }
                self.note_end(ScanResult::Failed(error));
                Ended::ScanFailed
            }
            Outcome::StoreFailed(error) => {
                if !is_told {
                    tracing::warn!(
                        error,
                        "the new report could not be kept; the one before it stays"
                    );
                }
                self.note_end(ScanResult::Failed(error));
                Ended::StoreFailed
            }
        };
        self.rescan.ended(clock::now(), ended);
        locked(&self.status).changing = self.rescan.changing();
        self.tell_status();
        self.renew();
    }
}
