//! The one place that reads a clock.
//!
//! Inside the process time is [`Instant`] and [`Duration`]; at rest and on the wire it is
//! [`WallTime`]. Policy never calls these functions: `now` comes to it as an argument.

pub mod backoff;
pub mod token_bucket;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time. On Linux it stands still while the machine is suspended. In a runtime whose time is
/// virtual it is the time of that runtime.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until this time; for ever without one.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Time of day of this machine.
pub fn wall_now() -> WallTime {
    SystemTime::now().into()
}

/// The time of day as one machine has it: a clock of its own, that may be wrong and may jump.
#[derive(Clone, Default)]
pub struct WallClock(Option<Arc<dyn Fn() -> WallTime + Send + Sync>>);

impl WallClock {
    /// A clock that `now` reads, where several machines are simulated in one process.
    pub fn simulated(now: impl Fn() -> WallTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The time of day.
    pub fn now(&self) -> WallTime {
        self.0.as_ref().map_or_else(wall_now, |now| now())
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.now()).finish()
    }
}

/// A point in time, in milliseconds since 1970-01-01T00:00:00Z; shown as RFC 3339 in UTC.
///
/// Clocks jump: compare wall times of one machine only to show an age, never to decide an order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct WallTime(u64);

impl WallTime {
    /// The latest time that can be shown: 9999-12-31T23:59:59.999Z.
    pub const LATEST: Self = Self(253_402_300_799_999);

    /// From milliseconds since 1970; later times than [`WallTime::LATEST`] become it.
    pub fn from_unix_ms(ms: u64) -> Self {
        Self(ms.min(Self::LATEST.0))
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when the clock went back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This much earlier, at the earliest the beginning of 1970.
    pub fn before(self, time: Duration) -> Self {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self::from_unix_ms(self.unix_ms().saturating_sub(ms))
    }

    /// This much later.
    pub fn after(self, time: Duration) -> Self {
        Self::from_unix_ms(
            self.0
                .saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

impl From<SystemTime> for WallTime {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `2026-11-21T10:00:00.123Z`.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(Self::LATEST.0));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl FromStr for WallTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_rfc3339(text)
            .map(Into::into)
            .map_err(|_| format!("{text:?} is not a time such as 2026-11-21T10:00:00.123Z"))
    }
}

/// Reads a time, or how long before `now` it was: `2026-11-21T10:00:00Z`, `1h`.
///
/// # Errors
/// It is neither.
pub fn time_or_age(text: &str, now: WallTime) -> Result<WallTime, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let age = parse_duration(text)
        .map_err(|_| format!("{text:?} is neither a time nor a duration such as 1h"))?;
    Ok(now.before(age))
}

/// Reads a duration as it is written in flags and files: `500ms`, `1s`, `5m`, `4h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a duration such as 500ms, 1s, 5m or 4h"))
}

/// Writes a duration so that [`parse_duration`] reads it: in the largest unit that leaves nothing
/// over, of those that people write. What is shorter than a millisecond is left out.
pub fn show_duration(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wall_time_is_shown_with_its_milliseconds() {
        let text = "2026-11-21T10:00:00.123Z";
        assert_eq!(text.parse::<WallTime>().unwrap().to_string(), text);
    }

    #[test]
    fn a_duration_is_shown_as_people_write_it() {
        let shown = [500, 1000, 90_000, 300_000, 14_400_000, 604_800_000]
            .map(|ms| show_duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["500ms", "1s", "90s", "5m", "4h", "168h"]);
    }

    #[test]
    fn a_time_or_how_long_ago_it_was_is_a_time() {
        let now = WallTime::from_unix_ms(7_200_000);
        let hour = WallTime::from_unix_ms(3_600_000);
        assert_eq!(time_or_age("1h", now), Ok(hour));
        assert_eq!(time_or_age(&hour.to_string(), now), Ok(hour));
        let refused = time_or_age("soon", now).unwrap_err();
        assert_eq!(
            refused,
            "\"soon\" is neither a time nor a duration such as 1h"
        );
    }

    #[test]
    fn a_clock_that_went_back_makes_an_age_of_zero() {
        assert_eq!(WallTime(5).since(WallTime(9)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn any_wall_time_can_be_shown_and_read(ms: u64) {
            let time = WallTime::from_unix_ms(ms);
            prop_assert_eq!(time.to_string().parse::<WallTime>().unwrap(), time);
        }

        #[test]
        fn any_duration_can_be_shown_and_read(ms in 0u64..1_000_000_000_000) {
            let time = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(time)).unwrap(), time);
        }
    }
}
