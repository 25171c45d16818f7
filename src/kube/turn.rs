//! What to ask next of one kind of object: list, watch from where the last one ended, or wait. Pure policy.

use super::KubeError;
use crate::clock::backoff::Backoff;
use std::time::{Duration, Instant};

/// A list is made again after this time, whatever the watch says.
const RELIST: Duration = Duration::from_secs(30 * 60);

/// How long a watch is asked for: between this and twice as long, so that watches do not end together.
const WATCH: Duration = Duration::from_secs(5 * 60);

/// A watch that ends before this time did not go well.
const QUICK: Duration = Duration::from_secs(5);

/// Between two questions that fail.
const FAILING: Backoff = Backoff {
    floor: Duration::from_secs(1),
    ceiling: Duration::from_secs(60),
};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// List everything.
    List,
    /// Watch from this version for this long.
    Watch {
        /// Version of the last thing that was told.
        version: String,
        /// Asked for as `timeoutSeconds`.
        time: Duration,
    },
    /// Nothing before this time.
    Pause(Instant),
}

/// Decides about turns.
#[derive(Debug, Default)]
pub struct TurnPolicy {
    /// Where a watch goes on; `None`: a list is needed.
    version: Option<String>,
    relist_at: Option<Instant>,
    pause: Option<Instant>,
    failures: u32,
    /// Watches in a row that ended at once.
    quick: u32,
}

impl TurnPolicy {
    /// The next turn. `jitter` is uniform in 0..1.
    pub fn next(&mut self, now: Instant, jitter: f64) -> Turn {
        if let Some(until) = self.pause.take_if(|until| *until > now) {
            return Turn::Pause(until);
        }
        if self.relist_at.is_some_and(|at| at <= now) {
            self.version = None;
        }
        match &self.version {
            None => Turn::List,
            Some(version) => Turn::Watch {
                version: version.clone(),
                time: WATCH.mul_f64(1.0 + jitter.clamp(0.0, 1.0)),
            },
        }
    }

    /// A list is complete.
    pub fn listed(&mut self, version: String, now: Instant, jitter: f64) {
        self.version = Some(version);
        self.relist_at = Some(now + RELIST.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0));
        self.failures = 0;
    }

    /// An event or a bookmark has this version.
    ///
    /// # Errors
    /// It has none: a watch from there would begin anywhere.
    pub fn told(&mut self, version: String) -> Result<(), KubeError> {
        if version.is_empty() {
            return Err(KubeError::broken("an event has no resourceVersion"));
        }
        (self.failures, self.quick) = (0, 0);
        self.version = Some(version);
        Ok(())
    }

    /// A watch ended, as it does when its time is over.
    pub fn ended(&mut self, lasted: Duration, now: Instant, jitter: f64) {
        self.quick = if lasted < QUICK { self.quick + 1 } else { 0 };
        self.pause = Some(now + FAILING.half_jitter(self.quick, jitter));
    }

    /// A list is wanted: a watch was silent for too long, or something has to be confirmed.
    pub fn want_list(&mut self) {
        self.version = None;
    }

    /// A question failed.
    pub fn failed(&mut self, error: &KubeError, now: Instant, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        let mut failures = self.failures;
        let mut pause = None;
        if let Some(refusal) = error.refusal() {
            pause = refusal.retry_after;
            match refusal.code {
                // The first list in its place may be made at once.
                410 => {
                    self.version = None;
                    failures -= 1;
                }
                401 | 403 | 429 | 503 => {}
                // Among them the version that is newer than the newest: etcd was restored.
                _ => self.version = None,
            }
        }
        let backoff = FAILING.half_jitter(failures, jitter);
        self.pause = Some(now + backoff.max(pause.unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::ApiRefusal;

    fn refused(code: u16, retry_after: Option<u64>) -> KubeError {
        KubeError::Refused(ApiRefusal {
            code,
            reason: String::new(),
            message: "".into(),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    fn listed(now: Instant) -> TurnPolicy {
        let mut pace = TurnPolicy::default();
        assert_eq!(pace.next(now, 0.5), Turn::List);
        pace.listed("7".into(), now, 0.0);
        pace
    }

    #[test]
    fn a_watch_follows_a_list_and_goes_on_where_it_ended() {
        let now = crate::clock::now();
        let mut pace = listed(now);
        let watch = |version: &str, seconds| Turn::Watch {
            version: version.into(),
            time: Duration::from_secs(seconds),
        };
        assert_eq!(pace.next(now, 0.0), watch("7", 300));
        pace.told("9".into()).unwrap();
        assert!(pace.told(String::new()).is_err());
        pace.ended(Duration::from_secs(300), now, 0.0);
        assert_eq!(pace.next(now, 1.0), watch("9", 600));
        // Silence, and time, ask for a list.
        pace.want_list();
        assert_eq!(pace.next(now, 0.0), Turn::List);
        pace.listed("11".into(), now, 0.0);
        assert_eq!(pace.next(now + RELIST, 0.0), Turn::List);
    }

    #[test]
    fn an_expired_version_is_listed_at_once_and_then_ever_more_rarely() {
        let now = crate::clock::now();
        let mut pace = listed(now);
        pace.failed(&refused(410, None), now, 1.0);
        assert_eq!(pace.next(now, 0.0), Turn::List);
        pace.failed(&refused(410, None), now, 1.0);
        assert_eq!(
            pace.next(now, 0.0),
            Turn::Pause(now + Duration::from_secs(1))
        );
    }

    #[test]
    fn the_server_says_when_to_come_again_and_a_refusal_keeps_the_version() {
        let now = crate::clock::now();
        for code in [429, 503, 401, 403] {
            let mut pace = listed(now);
            pace.failed(&refused(code, Some(30)), now, 0.0);
            let later = now + Duration::from_secs(30);
            assert_eq!(pace.next(now, 0.0), Turn::Pause(later));
            assert!(
                matches!(pace.next(later, 0.0), Turn::Watch { .. }),
                "{code}"
            );
        }
        // Newer than the newest, nonsense, and no such resource.
        for code in [504, 500, 400, 404] {
            let mut pace = listed(now);
            pace.failed(&refused(code, Some(90)), now, 0.0);
            let later = now + Duration::from_secs(90);
            assert_eq!(pace.next(now, 0.0), Turn::Pause(later));
            assert_eq!(pace.next(later, 0.0), Turn::List, "{code}");
            let mut pace = listed(now);
            pace.failed(&refused(code, None), now, 0.0);
            assert_eq!(pace.next(now + FAILING.ceiling, 0.0), Turn::List, "{code}");
        }
    }

    #[test]
    fn watches_that_end_at_once_are_not_asked_for_in_a_loop() {
        let now = crate::clock::now();
        let mut pace = listed(now);
        for seconds in [1, 2, 4] {
            pace.ended(Duration::ZERO, now, 1.0);
            let until = now + Duration::from_secs(seconds);
            assert_eq!(pace.next(now, 0.0), Turn::Pause(until));
        }
        pace.ended(QUICK, now, 1.0);
        assert!(matches!(pace.next(now, 0.0), Turn::Watch { .. }));
    }

    #[test]
    fn connections_that_fail_are_tried_up_to_once_a_minute() {
        let now = crate::clock::now();
        let mut pace = listed(now);
        for _ in 0..20 {
            pace.failed(&KubeError::Timeout("answer"), now, 1.0);
        }
        assert_eq!(pace.next(now, 0.0), Turn::Pause(now + FAILING.ceiling));
    }
}
