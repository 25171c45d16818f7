//! How long a server asks to be left alone.

use super::HttpResponse;
use std::time::{Duration, UNIX_EPOCH};

/// What `Retry-After` says: seconds, or a date seen from `now` (time since 1970). `None` when it
/// says nothing.
pub(crate) fn retry_after(response: &HttpResponse, now: Duration) -> Option<Duration> {
    parse(response.header("retry-after")?.trim(), now)
}

fn parse(text: &str, now: Duration) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    Some(http_date(text)?.saturating_sub(now))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as time since 1970: the one form that servers may still send.
fn http_date(text: &str) -> Option<Duration> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.split_once(", ")?;
    let parts: Vec<&str> = rest.split(' ').collect();
    let &[day, month, year, time, "GMT"] = parts.as_slice() else {
        return None;
    };
    let month = MONTHS.iter().position(|m| *m == month)? + 1;
    let date = humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()?;
    date.duration_since(UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_the_past_means_now() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(parse("3", now), Some(Duration::from_secs(3)));
        assert_eq!(
            parse("Sun, 06 Nov 1994 08:50:37 GMT", now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            parse("Sun, 06 Nov 1994 08:40:37 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(parse("soon", now), None);
        assert_eq!(parse("Sun, 06 Foo 1994 08:49:37 GMT", now), None);
    }
}
