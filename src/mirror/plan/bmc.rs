//! Host BMCs: recognised by their address; a component has one, the one that Core names.

use super::reconcile::{Entity, Fate, MatchOf, Work};
use super::{Earlier, FastMap, FastSet, Given, Plan};
use crate::inventory::{Bmc, BmcType, Component, Mac};
use crate::mirror::change::{Op, Ops};
use crate::mirror::spec::component::{Address, WantedComponent};
use crate::mirror::spec::{Sighting, WantedRow};
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use uuid::Uuid;

/// BMCs at a shared address that are named one by one; of more there is a count.
const MOST_SHARED_IPS: usize = 10;

/// The BMC of an entry whose component has an id.
pub(super) struct WantedBmc<'a> {
    pub(super) entry: &'a WantedComponent,
    /// Its place among the BMCs that are there.
    pub(super) stored: Option<usize>,
    pub(super) component: Uuid,
    /// The component was there before.
    pub(super) was_there: bool,
    /// The component's own row changes, too.
    pub(super) is_counted: bool,
}

impl WantedRow for WantedBmc<'_> {
    fn label(&self) -> String {
        self.entry.label()
    }

    fn sighting(&self) -> Sighting {
        self.entry.sighting()
    }
}

struct Bmcs {
    /// Components that were there and get the BMC that Core names.
    owners: FastSet<Uuid>,
    /// Components whose BMC changes.
    changed: FastSet<Uuid>,
}

/// Plans the BMCs of the components that `work` writes, as part of its plan. `present` are all BMCs, by address.
pub(super) fn plan_bmcs(
    work: &mut Work<'_, WantedComponent, Component>,
    wanted: &[WantedBmc<'_>],
    present: &[Bmc],
) {
    let absent = HashMap::new();
    let given = Given {
        skipped: &[],
        // Of the components at hand, every BMC is known.
        complete: true,
        absent: &absent,
        trace: false,
        ..work.given
    };
    let there = wanted.iter().filter(|bmc| bmc.was_there);
    let mut bmcs = Bmcs {
        owners: there.map(|bmc| bmc.component).collect(),
        changed: FastSet::default(),
    };
    let mut part = Work::new(given, wanted, present, Plan::new(given.kind));
    part.draft = std::mem::take(&mut work.draft);
    part.reconcile(&mut bmcs, &mut Uuid::nil);
    work.draft = part.draft;
    work.plan.warnings.append(&mut part.plan.warnings);
    let (counters, of_bmcs) = (&mut work.plan.counters, part.plan.counters);
    counters.evicted += of_bmcs.evicted;
    counters.hard_deleted += of_bmcs.hard_deleted;
    let alone = wanted
        .iter()
        .filter(|bmc| !bmc.is_counted && bmcs.changed.contains(&bmc.component));
    counters.updated += u64::try_from(alone.count()).unwrap_or(u64::MAX);
}

type Working<'a> = Work<'a, WantedBmc<'a>, Bmc>;

impl<'a> Entity<'a> for Bmcs {
    type Wanted = WantedBmc<'a>;
    type Row = Bmc;

    fn claim(&mut self, work: &mut Working<'a>) {
        work.claim_by("identity: same address", |work, i| {
            Ok(work.entries.get(i).and_then(|bmc| bmc.stored))
        });
    }

    fn unclaimed(&mut self, _: &mut Working<'a>, row: &'a Bmc) -> Fate {
        let is_ours = self.owners.contains(&row.component_id);
        if row.kind != BmcType::Host || !is_ours {
            return Fate::Keep;
        }
        self.changed.insert(row.component_id);
        let why = "a component has one Host BMC, and Core names another";
        Fate::Remove(Op::BmcHardDelete, why)
    }

    fn row(&mut self, _: &mut Working<'a>, at: &MatchOf<'a, Self>) -> Cow<'a, Bmc> {
        let component_id = at.entry.component;
        let stored = at
            .stored
            .filter(|stored| stored.component_id == component_id);
        Cow::Owned(Bmc {
            mac: at.entry.entry.mac,
            kind: BmcType::Host,
            component_id,
            ip: match at.entry.entry.ip {
                Address::At(ip) => ip,
                Address::Malformed => stored.and_then(|stored| stored.ip),
            },
        })
    }

    fn written(&mut self, work: &mut Working<'a>, at: &MatchOf<'a, Self>, after: &Bmc) -> Ops {
        if at.stored == Some(after) {
            return Ops::default();
        }
        self.changed.insert(after.component_id);
        match at.stored.map(|stored| stored.component_id) {
            None => Cow::Borrowed(&[(Op::BmcInsert, "Core lists it")]),
            Some(id) if id == after.component_id => {
                Cow::Borrowed(&[(Op::BmcUpdate, "Core says so")])
            }
            Some(id) => {
                work.plan.counters.evicted += 1;
                let why = format!("the BMC {} moves here from component {id}", after.mac);
                work.plan.warn("bmc_evicted", at.entry.label(), why);
                const WHY: &str = "Core gives this BMC to another component";
                Cow::Borrowed(&[(Op::BmcEvict, WHY), (Op::BmcInsert, WHY)])
            }
        }
    }
}

/// Two BMCs that answer at one address: one of them does not. Those of other types count if they were
/// pulled before in this cycle.
pub(super) fn warn_of_shared_ips(
    plan: &mut Plan,
    wanted: &[WantedBmc<'_>],
    present: &[Bmc],
    earlier: &Earlier,
) {
    let others = present.iter().filter(|bmc| bmc.kind == BmcType::Host);
    let others = others.filter(|bmc| earlier.mac(bmc.mac).is_some());
    let mut holder: FastMap<IpAddr, Mac> =
        others.filter_map(|bmc| Some((bmc.ip?, bmc.mac))).collect();
    let mut shared = Vec::new();
    for bmc in wanted {
        let mac = bmc.entry.mac;
        if let Address::At(Some(ip)) = bmc.entry.ip
            && !ip.is_unspecified()
        {
            let first = *holder.entry(ip).or_insert(mac);
            if first != mac {
                let why = format!("{first} and {mac} have the address {ip}");
                shared.push((bmc.label(), why));
            }
        }
    }
    let more = shared.len().saturating_sub(MOST_SHARED_IPS);
    for (label, why) in shared.into_iter().take(MOST_SHARED_IPS) {
        plan.warn("duplicate_bmc_ip", label, why);
    }
    if more > 0 {
        let why = format!("so have {more} more BMCs an address that another one has");
        plan.warn("duplicate_bmc_ip", "", why);
    }
}

/// Place of the BMC with this address. `bmcs` are in order of their addresses.
pub(super) fn place_of_bmc(bmcs: &[Bmc], mac: Mac) -> Option<usize> {
    bmcs.binary_search_by_key(&mac, |bmc| bmc.mac).ok()
}
