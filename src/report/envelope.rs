//! The unit that travels and waits: a report with everything needed to deliver it.

use super::{Digest, Facts, FactsHash, ReportKey, ReportView};
use crate::clock::WallTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {rule}")]
pub struct IdError {
    what: &'static str,
    rule: &'static str,
    text: String,
}

/// The sensor's name for a guest: what operators write in a roster and read at Central.
///
/// It becomes part of a NATS subject and of a header, so it holds only letters, digits and
/// `. _ : @ + -`, and is at most 128 bytes long. Cheap to clone: the sensor's tables share one text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VmId(#[serde(with = "shared_text")] Arc<str>);

impl VmId {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VmId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:@+-".contains(&b);
        let whole = !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed);
        // Empty tokens would make a NATS subject invalid.
        if !whole || text.starts_with('.') || text.ends_with('.') || text.contains("..") {
            return Err(IdError {
                what: "VM id",
                rule: "1 to 128 of letters, digits and . _ : @ + -, no dot at either end or twice in a row",
                text: text.chars().take(160).collect(),
            });
        }
        Ok(Self(text.into()))
    }
}

/// Shared text at rest: the same bytes as those of a `String`.
mod shared_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Stays with a machine wherever it is reached: the first 16 bytes of SHA-256 over `afferent` and
/// the machine-id, as 32 hex digits. The machine-id itself never leaves the guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GuestId(String);

impl GuestId {
    /// From the text of `/etc/machine-id`, white space trimmed.
    pub fn of_machine(machine_id: &str) -> Self {
        let hash = Sha256::new()
            .chain_update(b"afferent")
            .chain_update(machine_id.trim().as_bytes())
            .finalize();
        Self(hash.iter().take(16).map(|b| format!("{b:02x}")).collect())
    }

    /// 32 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GuestId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(IdError {
            what: "guest id",
            rule: "32 hex digits, as `afferent pull` and `afferent status` show it",
            text: text.chars().take(64).collect(),
        })
    }
}

impl fmt::Display for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a scan ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The RPM database changed.
    Reactive,
    /// The interval was over, or the agent started.
    Scheduled,
    /// A foreign agent did not say.
    Unknown,
}

impl Trigger {
    /// The value of the fact `scan_trigger`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reactive => "reactive",
            Self::Scheduled => "scheduled",
            Self::Unknown => "unknown",
        }
    }

    /// Reads the fact; anything but the two known words is [`Trigger::Unknown`].
    pub fn from_fact(value: Option<&str>) -> Self {
        match value {
            Some("reactive") => Self::Reactive,
            Some("scheduled") => Self::Scheduled,
            _ => Self::Unknown,
        }
    }
}

/// A report on its way from a guest to Central.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<'a> {
    /// The sensor's name for the guest.
    pub vm: VmId,
    /// Where it was pulled from, as written in the roster.
    pub address: String,
    /// Which machine answered there; foreign agents do not say.
    pub guest_id: Option<GuestId>,
    /// Which report of that guest.
    pub key: ReportKey,
    /// The sensor's own hash over the content.
    pub digest: Digest,
    /// The sensor's clock when the pull ended, later than that of every earlier document of the sensor.
    pub seen_at: WallTime,
    /// Why the scan ran.
    pub trigger: Trigger,
    /// When the agent made this report.
    pub generated_at: WallTime,
    /// Version of the agent, for people.
    pub agent_version: String,
    /// Facts as the agent sent them, content and scan alike.
    pub facts: Facts,
    /// The content; `None` in a document that only brings facts that changed after the report.
    #[serde(borrow)]
    pub report: Option<ReportView<'a>>,
}

/// Names a report of a guest: `<vm id>/<epoch>/<generation>/<16 hex digits of the content hash>`.
pub fn idempotency_key(vm: &VmId, key: ReportKey, digest: Digest) -> String {
    let (epoch, generation) = (key.epoch_or_zero(), key.generation);
    format!("{vm}/{epoch}/{generation}/{}", digest.short())
}

impl Envelope<'_> {
    /// `<vm id>/<epoch>/<generation>/<16 hex digits of the content hash>`, and behind it
    /// `/facts/<8 hex digits>` for facts alone. One key never stands for two contents.
    pub fn idempotency_key(&self) -> String {
        let report = idempotency_key(&self.vm, self.key, self.digest);
        match self.facts_alone() {
            None => report,
            Some(facts) => format!("{report}/facts/{facts}"),
        }
    }

    fn facts_alone(&self) -> Option<FactsHash> {
        match self.report {
            Some(_) => None,
            None => Some(FactsHash::of(&self.facts)),
        }
    }

    /// What the queue knows of it.
    pub fn summary(&self) -> ReportSummary {
        ReportSummary {
            guest_id: self.guest_id.clone(),
            key: self.key,
            digest: self.digest,
            trigger: self.trigger,
            generated_at: self.generated_at,
            seen_at: self.seen_at,
            packages: self.report.as_ref().map_or(0, |report| {
                u32::try_from(report.packages.len()).unwrap_or(u32::MAX)
            }),
            facts: FactsHash::of(&self.facts),
            facts_alone: self.facts_alone(),
        }
    }
}

/// What must be known of a report without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportSummary {
    /// Which machine answered.
    pub guest_id: Option<GuestId>,
    /// Which report of that guest.
    pub key: ReportKey,
    /// Over the content.
    pub digest: Digest,
    /// Why the scan ran.
    pub trigger: Trigger,
    /// When the agent made this report.
    pub generated_at: WallTime,
    /// The sensor's clock when the pull ended.
    pub seen_at: WallTime,
    /// Number of packages in it.
    pub packages: u32,
    /// Over its facts.
    pub facts: FactsHash,
    /// The same for a document that brings facts alone.
    pub facts_alone: Option<FactsHash>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_id_is_safe_in_a_subject_and_a_header() {
        for good in [
            "web-1",
            "a",
            "ns:vm_2",
            "rack1.node-7",
            "x".repeat(128).as_str(),
        ] {
            assert!(good.parse::<VmId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a*",
            ">",
            ".a",
            "a.",
            "a..b",
            "a\nb",
            "ä",
            "a/b",
            "x".repeat(129).as_str(),
        ] {
            assert!(bad.parse::<VmId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_guest_id_hides_the_machine_id_and_ignores_its_newline() {
        let id = GuestId::of_machine("0123456789abcdef0123456789abcdef\n");
        assert_eq!(id, GuestId::of_machine("0123456789abcdef0123456789abcdef"));
        assert_eq!(id.as_str().len(), 32);
        assert_ne!(id.as_str(), "0123456789abcdef0123456789abcdef");
        assert_eq!(id.as_str().parse::<GuestId>().unwrap(), id);
    }
}
