//! What `scan` and `pull` share of bills of materials: the time in them, and the remark about them.

use super::{DONE, complain};
use crate::clock::WallTime;
use crate::sbom::{self, BomFormat, Subject};

/// What a machine is called that has no name, no id, and was not given one.
pub(super) const NO_NAME: &str = "unknown-host";

/// The time that the environment wants documents to have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BomTime(Option<WallTime>);

impl BomTime {
    /// That time; else this one.
    pub(super) fn or(self, at: WallTime) -> WallTime {
        self.0.unwrap_or(at)
    }
}

/// Reads `SOURCE_DATE_EPOCH`: whoever sets it wants equal bytes from one build to the next.
///
/// # Errors
/// It is no number of seconds since 1970.
pub(super) fn time() -> Result<BomTime, String> {
    match std::env::var_os("SOURCE_DATE_EPOCH") {
        None => Ok(BomTime::default()),
        Some(text) => parse(&text.to_string_lossy()),
    }
}

fn parse(text: &str) -> Result<BomTime, String> {
    let seconds: u64 = text
        .parse()
        .map_err(|_| format!("SOURCE_DATE_EPOCH: {text:?} is no number of seconds since 1970"))?;
    let at = WallTime::from_unix_ms(seconds.saturating_mul(1000));
    Ok(BomTime(Some(at)))
}

/// The document with a newline at its end; standard error says what scanners do not say about it.
pub(super) fn write(subject: &Subject<'_>, format: BomFormat) -> Vec<u8> {
    if let Some(remark) = sbom::remark(&subject.report.distribution) {
        complain(DONE, &remark);
    }
    let mut document = subject.document(format);
    document.push(b'\n');
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_environment_is_in_seconds() {
        let later = WallTime::from_unix_ms(5);
        let at = parse("1700000000").unwrap().or(later);
        assert_eq!(at.to_string(), "2023-11-14T22:13:20.000Z");
        assert_eq!(BomTime::default().or(later), later);
        for bad in ["", "-1", "yesterday", "1.5"] {
            assert!(
                parse(bad).unwrap_err().contains("SOURCE_DATE_EPOCH"),
                "{bad}"
            );
        }
    }
}
