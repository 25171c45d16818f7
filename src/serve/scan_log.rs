//! The scans of an agent by number, and how the last ones ended: for whoever asked for one.
//!
//! A scan that was overtaken by a transaction has not ended: it is repeated under the next number.

use super::installed::ReportChanges;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Scans whose end is remembered.
const REMEMBERED: usize = 16;

/// How a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScanResult {
    /// There is a new report.
    New(Option<ReportChanges>),
    /// Nothing changed.
    Same,
    /// The database holds no package, or it gave nothing; says why.
    Failed(String),
}

/// The numbers of scans, from 1.
#[derive(Debug, Default)]
pub(super) struct ScanLog {
    begun: u64,
    ended: VecDeque<(u64, ScanResult)>,
}

impl ScanLog {
    /// A scan begins.
    pub(super) fn begin(&mut self) {
        self.begun += 1;
    }

    /// The scan that began last has ended.
    pub(super) fn end(&mut self, result: ScanResult) {
        self.ended.push_back((self.begun, result));
        if self.ended.len() > REMEMBERED {
            self.ended.pop_front();
        }
    }

    /// The number of the next scan: it begins after this question.
    pub(super) fn next(&self) -> u64 {
        self.begun + 1
    }

    /// How the first scan of this number or a later one ended; `key` is that of the newest report.
    pub(super) fn show(&self, number: u64, key: Option<&str>, transaction: Option<i32>) -> Value {
        let mut ended = self.ended.iter();
        let Some((_, result)) = ended.find(|(ended, _)| *ended >= number) else {
            return json!({"scan": number, "result": null, "transaction": transaction});
        };
        match result {
            ScanResult::New(changes) => json!({
                "scan": number,
                "result": "new",
                "report": key,
                "changed": changes.as_ref().map(|changes| changes.count),
                "changes": changes.as_ref().map(|changes| &changes.lines),
            }),
            ScanResult::Same => json!({"scan": number, "result": "same", "report": key}),
            ScanResult::Failed(error) => {
                json!({"scan": number, "result": "failed", "report": key, "error": error})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The loss: an answer that tells of a scan that began before the change that was to be seen.
    #[test]
    fn only_a_scan_that_began_after_the_question_answers_it() {
        let mut log = ScanLog::default();
        log.begin();
        let asked = log.next();
        log.end(ScanResult::New(None));
        assert_eq!(log.show(asked, None, Some(7))["result"], Value::Null);
        assert_eq!(log.show(asked, None, Some(7))["transaction"], 7);
        log.begin();
        // Overtaken, and repeated.
        log.begin();
        log.end(ScanResult::Same);
        assert_eq!(log.show(asked, None, None)["result"], "same");
        assert_eq!(log.show(1, None, None)["result"], "new");
        for _ in 0..100 {
            log.begin();
            log.end(ScanResult::Failed("why".into()));
        }
        assert_eq!(log.ended.len(), REMEMBERED);
        assert_eq!(log.show(asked, None, None)["error"], "why");
    }
}
