//! Rows of the fleet store as 0.2 began with them.

use super::ChangeEvent;
use crate::clock::WallTime;
use crate::report::{Digest, GuestId, ReportKey, Trigger};
use serde::{Deserialize, Serialize};

/// A guest without its platform.
#[derive(Serialize, Deserialize)]
pub(in crate::sense::fleet) struct GuestState<'a> {
    key: ReportKey,
    digest: Digest,
    seen_at: WallTime,
    generated_at: WallTime,
    changed_at: WallTime,
    trigger: Trigger,
    guest_id: Option<GuestId>,
    agent_version: &'a str,
    os_id: &'a str,
    os_version: &'a str,
    os_name: &'a str,
    #[serde(borrow)]
    facts: Vec<(&'a str, &'a str)>,
    newest_change: Option<u64>,
    packages: u32,
    ids: &'a [u8],
}

impl<'a> From<GuestState<'a>> for super::GuestState<'a> {
    fn from(old: GuestState<'a>) -> Self {
        Self {
            key: old.key,
            digest: old.digest,
            seen_at: old.seen_at,
            generated_at: old.generated_at,
            changed_at: old.changed_at,
            trigger: old.trigger,
            guest_id: old.guest_id,
            agent_version: old.agent_version,
            os_id: old.os_id,
            os_version: old.os_version,
            os_name: old.os_name,
            facts: old.facts,
            newest_change: old.newest_change,
            packages: old.packages,
            ids: old.ids,
            platform: None,
        }
    }
}

/// A row of the change log without the digests of its reports.
#[derive(Serialize, Deserialize)]
pub(in crate::sense::fleet) struct ChangeRow<'a> {
    vm: &'a str,
    at: WallTime,
    from: Option<ReportKey>,
    key: ReportKey,
    trigger: Trigger,
    previous: Option<u64>,
    event: ChangeEvent,
}

impl<'a> From<ChangeRow<'a>> for super::ChangeRow<'a> {
    fn from(old: ChangeRow<'a>) -> Self {
        Self {
            vm: old.vm,
            at: old.at,
            from: old.from,
            from_digest: None,
            key: old.key,
            digest: None,
            trigger: old.trigger,
            previous: old.previous,
            event: old.event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::GuestState as NewGuestState;
    use super::GuestState;
    use crate::store::codec::Row;

    impl<'a> Row<'a> for GuestState<'a> {
        const VERSION: u8 = 1;
    }

    impl<'a> From<NewGuestState<'a>> for GuestState<'a> {
        fn from(new: NewGuestState<'a>) -> Self {
            Self {
                key: new.key,
                digest: new.digest,
                seen_at: new.seen_at,
                generated_at: new.generated_at,
                changed_at: new.changed_at,
                trigger: new.trigger,
                guest_id: new.guest_id,
                agent_version: new.agent_version,
                os_id: new.os_id,
                os_version: new.os_version,
                os_name: new.os_name,
                facts: new.facts,
                newest_change: new.newest_change,
                packages: new.packages,
                ids: new.ids,
            }
        }
    }
}
