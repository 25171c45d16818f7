//! Rows of guests and of the change log, each under a checksum: redb does not verify its own on ordinary reads.

use crate::clock::WallTime;
use crate::report::diff::{ChangeSet, Replacement};
use crate::report::{Digest, GuestId, ReportKey, Trigger, facts};
use crate::store::codec::{self, Row};
use crate::store::{CodecError, TxError};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

pub(super) mod v1;

/// What is known of a guest: its last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GuestState<'a> {
    /// Which report.
    pub key: ReportKey,
    /// The sensor's hash over its content.
    pub digest: Digest,
    /// When the sensor saw the newest document.
    pub seen_at: WallTime,
    /// When the agent made it.
    pub generated_at: WallTime,
    /// When packages changed last, or the first report was seen.
    pub changed_at: WallTime,
    /// Why the newest scan ran.
    pub trigger: Trigger,
    /// The machine.
    pub guest_id: Option<GuestId>,
    /// Version of its agent.
    pub agent_version: &'a str,
    /// `ID` of os-release.
    pub os_id: &'a str,
    /// `VERSION_ID` of os-release.
    pub os_version: &'a str,
    /// `PRETTY_NAME` of os-release.
    pub os_name: &'a str,
    /// Facts of the newest document.
    #[serde(borrow)]
    pub facts: Vec<(&'a str, &'a str)>,
    /// Number of its newest row in the change log.
    pub newest_change: Option<u64>,
    /// Number of packages.
    pub packages: u32,
    /// Their ids, see [`super::ids`].
    pub ids: &'a [u8],
    /// Id of its platform, see [`super::platform`]; `None`: no full report came since version 1 of the row.
    pub platform: Option<u32>,
}

impl<'a> Row<'a> for GuestState<'a> {
    const VERSION: u8 = 2;

    fn read_old(version: u8, fields: &'a [u8]) -> Result<Self, CodecError> {
        match version {
            1 => codec::fields::<v1::GuestState<'_>>(fields).map(Into::into),
            other => Err(CodecError::UnknownVersion(Some(other))),
        }
    }
}

impl GuestState<'_> {
    /// Whether it says that a boot is due.
    pub(super) fn needs_reboot(&self) -> bool {
        let needed = self.fact(facts::REBOOT_NEEDED);
        needed.is_some_and(|reasons| !reasons.is_empty() && reasons != "no")
    }

    /// A fact of the newest document.
    pub(super) fn fact(&self, name: &str) -> Option<&str> {
        let found = self.facts.iter().find(|(held, _)| *held == name);
        found.map(|(_, value)| *value)
    }
}

/// A row of the change log: from one report of a guest to the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChangeRow<'a> {
    /// The guest.
    pub vm: &'a str,
    /// When the sensor saw the later report.
    pub at: WallTime,
    /// The earlier report; `None`: there was none.
    pub from: Option<ReportKey>,
    /// The sensor's hash over its content; `None` in rows that were of version 1, which had no digests.
    pub from_digest: Option<Digest>,
    /// The later report.
    pub key: ReportKey,
    /// The sensor's hash over its content; `None` as above.
    pub digest: Option<Digest>,
    /// Why its scan ran.
    pub trigger: Trigger,
    /// Number of the guest's row before this one.
    pub previous: Option<u64>,
    /// What changed.
    pub event: ChangeEvent,
}

/// What a row of the change log tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ChangeEvent {
    /// The first report of the guest, or of another machine under its name, with this many packages.
    Baseline(u32),
    /// Packages by id; replacements as from and to.
    Changes {
        /// New ones.
        added: Vec<u32>,
        /// Those that are gone.
        removed: Vec<u32>,
        /// A higher version in place of a lower one.
        upgraded: Vec<(u32, u32)>,
        /// A lower version in place of a higher one.
        downgraded: Vec<(u32, u32)>,
        /// Something else.
        changed: Vec<(u32, u32)>,
    },
}

impl<'a> Row<'a> for ChangeRow<'a> {
    const VERSION: u8 = 2;

    fn read_old(version: u8, fields: &'a [u8]) -> Result<Self, CodecError> {
        match version {
            1 => codec::fields::<v1::ChangeRow<'_>>(fields).map(Into::into),
            other => Err(CodecError::UnknownVersion(Some(other))),
        }
    }
}

impl Default for ChangeEvent {
    /// The packages are the same.
    fn default() -> Self {
        ChangeSet::default().into()
    }
}

impl From<ChangeSet<u32>> for ChangeEvent {
    fn from(set: ChangeSet<u32>) -> Self {
        let pairs = |pairs: Vec<Replacement<u32>>| {
            let pairs = pairs.into_iter().map(|pair| (pair.from, pair.to));
            pairs.collect()
        };
        Self::Changes {
            added: set.added,
            removed: set.removed,
            upgraded: pairs(set.upgraded),
            downgraded: pairs(set.downgraded),
            changed: pairs(set.changed),
        }
    }
}

impl ChangeEvent {
    /// The changes; `None` for a baseline.
    pub(super) fn set(self) -> Option<ChangeSet<u32>> {
        let Self::Changes {
            added,
            removed,
            upgraded,
            downgraded,
            changed,
        } = self
        else {
            return None;
        };
        let pairs = |pairs: Vec<(u32, u32)>| {
            let pairs = pairs.into_iter().map(|(from, to)| Replacement { from, to });
            pairs.collect()
        };
        Some(ChangeSet {
            added,
            removed,
            upgraded: pairs(upgraded),
            downgraded: pairs(downgraded),
            changed: pairs(changed),
        })
    }
}

/// Bytes of the checksum.
const SUM: usize = 8;

/// A row with its checksum behind it.
pub(super) fn seal<'a>(row: &impl Row<'a>) -> Result<Vec<u8>, CodecError> {
    let mut bytes = codec::encode(row)?;
    let sum = XxHash64::oneshot(0, &bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// The row in these bytes, if they have their checksum.
pub(super) fn open<'a, T: Row<'a>>(bytes: &'a [u8]) -> Result<T, TxError> {
    let cut = bytes.len().checked_sub(SUM);
    let (row, sum) = bytes.split_at(cut.unwrap_or_default());
    if XxHash64::oneshot(0, row).to_le_bytes() != sum {
        return Err(TxError::Failed("a row does not have its checksum".into()));
    }
    Ok(codec::decode(row)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::{Epoch, Generation};

    pub(in crate::sense::fleet) fn key(generation: u32) -> ReportKey {
        ReportKey {
            epoch: Epoch::new(7),
            generation: Generation::new(generation).unwrap(),
        }
    }

    fn change() -> ChangeRow<'static> {
        ChangeRow {
            vm: "a",
            at: WallTime::from_unix_ms(300),
            from: Some(key(1)),
            from_digest: None,
            key: key(2),
            digest: None,
            trigger: Trigger::Reactive,
            previous: Some(4),
            event: ChangeEvent::Changes {
                added: vec![1],
                removed: vec![2],
                upgraded: vec![(3, 4)],
                downgraded: vec![(5, 6)],
                changed: vec![(7, 8)],
            },
        }
    }

    #[test]
    fn rows_are_read_as_each_version_wrote_them() {
        let bytes = codec::encode(&change()).unwrap();
        assert_eq!(
            bytes,
            [
                2, 1, b'a', 251, 44, 1, 1, 1, 7, 1, 0, 1, 7, 2, 0, 0, 1, 4, 1, 1, 1, 1, 2, 1, 3, 4,
                1, 5, 6, 1, 7, 8
            ]
        );
        // Version 1 had no digests.
        let mut old = bytes;
        (old[0], _, _) = (1, old.remove(14), old.remove(10));
        assert_eq!(codec::decode::<ChangeRow<'_>>(&old).unwrap(), change());
        let digest = Some(crate::report::Report::default().digest());
        let told = ChangeRow {
            from_digest: digest,
            digest,
            ..change()
        };
        let bytes = codec::encode(&told).unwrap();
        assert_eq!((bytes.len(), bytes[10]), (32 + 2 * 32, 1));
        assert_eq!(codec::decode::<ChangeRow<'_>>(&bytes).unwrap(), told);
        let mut state = GuestState {
            key: key(1),
            digest: crate::report::Report::default().digest(),
            seen_at: WallTime::from_unix_ms(1),
            generated_at: WallTime::from_unix_ms(2),
            changed_at: WallTime::from_unix_ms(3),
            trigger: Trigger::Scheduled,
            guest_id: None,
            agent_version: "0.2.0",
            os_id: "rhel",
            os_version: "9.4",
            os_name: "RHEL 9",
            facts: vec![("a", "b")],
            newest_change: None,
            packages: 2,
            ids: &[1, 1],
            platform: Some(9),
        };
        let bytes = codec::encode(&state).unwrap();
        // Between these are the 32 bytes of the digest.
        assert_eq!((bytes.len(), &bytes[..4]), (75, &[2, 1, 7, 1][..]));
        assert_eq!(
            bytes[bytes.len() - 39..],
            *b"\x01\x02\x03\x01\x00\x050.2.0\x04rhel\x039.4\x06RHEL 9\x01\x01a\x01b\x00\x02\x02\x01\x01\x01\x09"
        );
        assert_eq!(codec::decode::<GuestState<'_>>(&bytes).unwrap(), state);
        // Version 1 ends before the platform.
        let mut old = bytes[..bytes.len() - 2].to_vec();
        old[0] = 1;
        state.platform = None;
        assert_eq!(codec::decode::<GuestState<'_>>(&old).unwrap(), state);
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let row = change();
        let bytes = seal(&row).unwrap();
        assert_eq!(open::<ChangeRow<'_>>(&bytes).unwrap(), row);
        for bit in 0..bytes.len() * 8 {
            let mut spoilt = bytes.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<ChangeRow<'_>>(&spoilt).is_err(), "bit {bit}");
        }
        assert!(open::<ChangeRow<'_>>(&bytes[..3]).is_err());
    }
}
