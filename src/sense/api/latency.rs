//! Latency from a change in a guest to Central's acceptance over the last hour, estimated from the histogram that is
//! counted anyway.
//!
//! Once a minute the counts are noted; what came between two notes is what happened in that minute. A quantile is
//! interpolated within its bucket, as Prometheus does, so that it is as exact as the buckets are narrow.

use crate::clock::WallTime;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// Between two notes.
pub(super) const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Notes that are held: of an hour.
const NOTES: usize = 60;

/// Counts as they were at a time: one a bucket, the last one without an upper bound.
struct Note {
    at: WallTime,
    counts: Vec<u64>,
}

/// The last hour.
pub(super) struct LatencyWindow {
    bounds: &'static [f64],
    /// The oldest first.
    notes: VecDeque<Note>,
}

impl LatencyWindow {
    /// Begins with these counts.
    pub(super) fn new(bounds: &'static [f64], at: WallTime, counts: Vec<u64>) -> Self {
        Self {
            bounds,
            notes: VecDeque::from([Note { at, counts }]),
        }
    }

    /// Notes how the counts are now. One note more than minutes: each minute lies between two.
    pub(super) fn note(&mut self, at: WallTime, counts: Vec<u64>) {
        while self.notes.len() > NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { at, counts });
    }

    /// Changes that were accepted in the last hour with their latency, and the same of each minute in which there
    /// were some.
    pub(super) fn json(&self, now: &[u64]) -> Value {
        let oldest = self.notes.front().map(|note| note.counts.as_slice());
        let mut answer = self.quantiles(oldest.unwrap_or_default(), now);
        let later = self
            .notes
            .iter()
            .skip(1)
            .map(|note| (Some(note.at), note.counts.as_slice()));
        let ends = later.chain([(None, now)]);
        let minutes = self.notes.iter().zip(ends).filter_map(|(begin, (_, end))| {
            let mut minute = self.quantiles(&begin.counts, end);
            minute["at"] = json!(begin.at.to_string());
            (minute["count"] != 0).then_some(minute)
        });
        answer["minutes"] = minutes.collect();
        answer
    }

    /// What came between two counts.
    fn quantiles(&self, before: &[u64], after: &[u64]) -> Value {
        let before = before.iter().chain(std::iter::repeat(&0));
        let came: Vec<u64> = after
            .iter()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(*before))
            .collect();
        json!({
            "count": came.iter().sum::<u64>(),
            "p50_s": quantile(self.bounds, &came, 0.5),
            "p99_s": quantile(self.bounds, &came, 0.99),
        })
    }
}

/// The value below which this share of what was counted lies; `None`: nothing was. Beyond the last bound it is that
/// bound.
fn quantile(bounds: &[f64], counts: &[u64], share: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return None;
    }
    let wanted = share * all as f64;
    let (mut below, mut from) = (0.0, 0.0);
    for (bound, count) in bounds.iter().zip(counts) {
        let here = *count as f64;
        if here > 0.0 && below + here >= wanted {
            return Some(from + (bound - from) * (wanted - below) / here);
        }
        (below, from) = (below + here, *bound);
    }
    Some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[0.1, 0.2, 1.0];

    fn minute(n: u64) -> WallTime {
        WallTime::from_unix_ms(n * 60_000)
    }

    #[test]
    fn a_quantile_is_interpolated_in_its_bucket() {
        for (counts, share, wanted) in [
            ([0, 0, 0, 0], 0.5, None),
            ([10, 0, 0, 0], 0.5, Some(0.05)),
            ([5, 5, 0, 0], 0.5, Some(0.1)),
            ([0, 10, 0, 0], 0.5, Some(0.15)),
            ([98, 0, 0, 2], 0.99, Some(1.0)),
            ([0, 0, 0, 7], 0.5, Some(1.0)),
        ] {
            let found = quantile(BOUNDS, &counts, share);
            let is_near = match (found, wanted) {
                (Some(found), Some(wanted)) => f64::abs(found - wanted) < 1e-9,
                (found, wanted) => found == wanted,
            };
            assert!(is_near, "{counts:?} {share}: {found:?}");
        }
    }

    #[test]
    fn only_the_last_hour_counts_and_minutes_without_a_change_are_left_out() {
        let mut window = LatencyWindow::new(BOUNDS, minute(0), vec![1000, 0, 0, 0]);
        assert_eq!(
            window.json(&[1000, 0, 0, 0])["count"],
            0,
            "before the start"
        );
        window.note(minute(1), vec![1000, 4, 0, 0]);
        window.note(minute(2), vec![1000, 4, 0, 0]);
        let hour = window.json(&[1000, 4, 2, 0]);
        assert_eq!(
            (&hour["count"], hour["minutes"].as_array().unwrap().len()),
            (&json!(6), 2)
        );
        assert_eq!(hour["minutes"][0]["at"], minute(0).to_string());
        assert_eq!(hour["minutes"][1]["count"], 2);
        for n in 3..=61 {
            window.note(minute(n), vec![1000, 4, 2, 0]);
        }
        assert_eq!(window.json(&[1000, 4, 2, 0])["count"], 2, "an hour later");
        window.note(minute(62), vec![1000, 4, 2, 0]);
        window.note(minute(63), vec![1000, 4, 2, 0]);
        let hour = window.json(&[1000, 4, 2, 0]);
        assert_eq!(
            (&hour["count"], &hour["p50_s"], &hour["minutes"]),
            (&json!(0), &Value::Null, &json!([]))
        );
        assert_eq!(window.notes.len(), NOTES + 1);
    }
}
