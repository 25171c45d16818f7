//! NVLink domains, rack groups and the health of racks: complete snapshots that replace what is stored.
//! Pure.
//!
//! | `rack_groups` | A domain is | `nvlink_domains` says |
//! |---|---|---|
//! | was pulled | a rack group: external_id is the group's id | which cluster the group's controllers form: nmxc_cluster_id |
//! | was not | what the switches report: external_id is the domain's id | which racks are in it |
//!
//! - A list that failed, or that holds an entry that cannot be read, keeps everything as it is.
//! - With groups: a rack without a group keeps its domain. A group of which nothing was observed loses its
//!   cluster; one of which two clusters were observed, or an id that is no UUID, keeps what it has.
//! - Without groups: a rack that the snapshot omits is in no domain. One that is in two keeps what it has.
//!   An empty snapshot counts as the knob `empty` says.
//! - A domain that a rack left becomes a tombstone when no live rack is in it any more; any other domain
//!   without racks stays, because somebody may have made it. A tombstone that is named again lives again.
//! - A rack that is not there is warned of and costs nothing else.
//! - Health: a live rack that the list lacks has none.

use super::change::{Change, Draft};
use super::core::{DomainMember, Pull, RackGroup, RackHealth, Topology};
use super::diagnostics::{Diagnostic, TypeCounters};
use super::policy::{Empty, Policy};
use super::snapshot::replace_snapshot;
use crate::inventory::{Domain, Rack, Record};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// What it is called in summaries and the audit log.
pub const TYPE: &str = "NVLDomain";

/// What is there, read in the transaction that will write.
pub(super) struct PresentTopology {
    /// All racks, tombstones included.
    pub(super) racks: Vec<Rack>,
    /// All domains, tombstones included.
    pub(super) domains: Vec<Domain>,
}

/// Everything that the transaction does.
#[derive(Debug, Default)]
pub(super) struct TopologyPlan {
    /// Rows to write.
    pub(super) changes: Vec<Change>,
    /// What they amount to; `updated` counts racks and domains.
    pub(super) counters: TypeCounters,
    /// Worth a look.
    pub(super) warnings: Vec<Diagnostic>,
}

/// The domain that a rack shall be in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Membership<'a> {
    /// Nothing is known: it stays where it is.
    Keep,
    /// In none.
    None,
    /// In the one with this external_id.
    In(&'a str),
}

/// Plans what the lists that were pulled say. Lists that failed are not among them.
pub(super) fn plan(
    lists: &Topology,
    present: &PresentTopology,
    policy: &Policy,
    now: &str,
    new_id: &mut dyn FnMut() -> Uuid,
) -> TopologyPlan {
    let mut planner = Planner {
        racks: present
            .racks
            .iter()
            .filter(|rack| rack.is_live())
            .filter_map(|rack| Some((rack.external_id.as_deref()?, rack)))
            .collect(),
        present,
        draft: Draft::default(),
        plan: TopologyPlan::default(),
        now,
    };
    match (&lists.groups, &lists.domains) {
        (Pull::Done(groups), domains @ (Pull::Done(_) | Pull::Absent)) => {
            planner.pulled(groups.entries.len());
            let members = match domains {
                Pull::Done(members) => Some(members.entries.as_slice()),
                Pull::Absent | Pull::Failed(_) => None,
            };
            let memberships = planner.by_group(&groups.entries);
            let clusters = members.map(|members| planner.clusters(&memberships, members));
            planner.write(&memberships, clusters.as_ref(), true, new_id);
        }
        (Pull::Absent, Pull::Done(members)) => {
            planner.pulled(members.entries.len());
            if let Some(memberships) = planner.by_domain(&members.entries, policy) {
                let clusters = own_ids(&memberships);
                planner.write(&memberships, Some(&clusters), false, new_id);
            }
        }
        // Without the groups nobody knows what a domain is.
        (Pull::Failed(_), _) | (_, Pull::Failed(_)) | (Pull::Absent, Pull::Absent) => {}
    }
    if let Pull::Done(health) = &lists.health {
        planner.write_health(&health.entries);
    }
    planner.plan.changes = planner.draft.finish(now);
    planner.plan
}

type Memberships<'a> = BTreeMap<&'a str, Membership<'a>>;
/// The cluster of each domain, by external_id; a domain that is not in it keeps what it has.
type Clusters<'a> = HashMap<&'a str, Option<Uuid>>;

/// Where a domain is known by what its controllers report, that is its cluster.
fn own_ids<'a>(memberships: &Memberships<'a>) -> Clusters<'a> {
    let named = memberships
        .values()
        .filter_map(|membership| match membership {
            Membership::In(id) => Some(*id),
            Membership::Keep | Membership::None => None,
        });
    named.map(|id| (id, id.parse().ok())).collect()
}

struct Planner<'a> {
    /// Live racks by external_id.
    racks: BTreeMap<&'a str, &'a Rack>,
    present: &'a PresentTopology,
    draft: Draft,
    plan: TopologyPlan,
    now: &'a str,
}

impl<'a> Planner<'a> {
    fn pulled(&mut self, entries: usize) {
        self.plan.counters.pulled = u64::try_from(entries).unwrap_or(u64::MAX);
    }

    fn warn(&mut self, code: &str, key: &str, why: impl Into<String>) {
        self.plan
            .warnings
            .push(Diagnostic::about(code, TYPE, key, why));
    }

    /// The rack, unless there is none, which is worth a warning.
    fn rack(&mut self, rack_id: &str) -> Option<&'a Rack> {
        let found = self.racks.get(rack_id).copied();
        if found.is_none() {
            self.warn(
                "topology_rack_unknown",
                rack_id,
                "there is no such live rack",
            );
        }
        found
    }

    /// The group of each rack that has one.
    fn by_group<'e>(&mut self, groups: &'e [RackGroup]) -> Memberships<'e> {
        let mut memberships = Memberships::new();
        for entry in groups {
            if self.rack(entry.rack_id()).is_none() || entry.group_id().is_empty() {
                continue;
            }
            self.join(&mut memberships, entry.rack_id(), entry.group_id());
        }
        memberships
    }

    /// The domain of each rack, with none for those that the snapshot omits.
    fn by_domain<'e>(
        &mut self,
        members: &'e [DomainMember],
        policy: &Policy,
    ) -> Option<Memberships<'e>>
    where
        'a: 'e,
    {
        let in_use = self.racks.values().any(|rack| rack.nvldomain_id.is_some());
        if members.is_empty() && policy.empty == Empty::Skip {
            if in_use {
                let why = "the snapshot is empty: every rack stays in its domain";
                self.warn("empty_response_delete_skipped", "", why);
            }
            return None;
        }
        let mut memberships: Memberships<'e> = self
            .racks
            .keys()
            .map(|rack_id| (*rack_id, Membership::None))
            .collect();
        for entry in members {
            if self.rack(entry.rack_id()).is_none() {
                continue;
            }
            if entry.domain_id().is_empty() {
                self.warn("invalid_domain", entry.rack_id(), "the domain has no id");
                memberships.insert(entry.rack_id(), Membership::Keep);
                continue;
            }
            self.join(&mut memberships, entry.rack_id(), entry.domain_id());
        }
        Some(memberships)
    }

    /// Puts a rack where an entry says, unless another entry says something else.
    fn join<'e>(&mut self, memberships: &mut Memberships<'e>, rack_id: &'e str, domain: &'e str) {
        let known = memberships.get(rack_id).copied();
        let next = match known {
            None | Some(Membership::None) => Membership::In(domain),
            Some(Membership::In(other)) if other == domain => return,
            Some(Membership::In(_) | Membership::Keep) => {
                let why = "the rack is in two of them: it stays where it is";
                self.warn("duplicate_membership", rack_id, why);
                Membership::Keep
            }
        };
        memberships.insert(rack_id, next);
    }

    /// The cluster of each group. Of a group whose observations contradict each other nothing is said.
    fn clusters<'e>(
        &mut self,
        memberships: &Memberships<'e>,
        members: &[DomainMember],
    ) -> Clusters<'e> {
        let mut clusters: Clusters<'e> = own_ids(memberships)
            .into_keys()
            .map(|g| (g, None))
            .collect();
        let mut doubtful: BTreeSet<&'e str> = BTreeSet::new();
        for member in members {
            let group = match memberships.get(member.rack_id()) {
                Some(Membership::In(group)) => *group,
                _ => {
                    let why = "a cluster was observed in a rack without a group";
                    self.warn("topology_rack_unknown", member.rack_id(), why);
                    continue;
                }
            };
            let observed = member.domain_id().parse::<Uuid>().ok();
            let observed = observed.filter(|id| !id.is_nil());
            let known = clusters.get(group).copied().flatten();
            if observed.is_none() || known.is_some_and(|known| Some(known) != observed) {
                doubtful.insert(group);
            } else {
                clusters.insert(group, observed);
            }
        }
        for group in doubtful {
            let why = "two clusters were observed, or an id that is no UUID: it keeps what it has";
            self.warn("nmxc_cluster_conflict", group, why);
            clusters.remove(group);
        }
        clusters
    }

    fn write(
        &mut self,
        memberships: &Memberships<'_>,
        clusters: Option<&Clusters<'_>>,
        are_groups: bool,
        new_id: &mut dyn FnMut() -> Uuid,
    ) {
        let named: BTreeSet<&str> = own_ids(memberships).into_keys().collect();
        let (present, now) = (self.present, self.now);
        let domains = named.into_iter().map(|external_id| {
            let stored = present.domains.iter();
            let mut stored = stored.filter(|d| d.external_id.as_deref() == Some(external_id));
            let mut new = || Domain::new(new_id(), external_id.to_owned(), now);
            let domain = stored.next().map(Cow::Borrowed);
            (external_id, domain.unwrap_or_else(|| Cow::Owned(new())))
        });
        let domains: Vec<(&str, Cow<'_, Domain>)> = domains.collect();
        let ids: HashMap<&str, String> = domains
            .iter()
            .map(|(external_id, domain)| (*external_id, domain.id.to_string()))
            .collect();
        self.replace("observed", domains, |external_id, domain| {
            domain.deleted_at = None;
            if let Some(cluster) = clusters.and_then(|clusters| clusters.get(external_id)) {
                domain.nmxc_cluster_id = *cluster;
            }
        });
        let place = |rack_id: &str, rack: &mut Rack| match memberships.get(rack_id) {
            None | Some(Membership::Keep) => {}
            Some(Membership::None) => rack.nvldomain_id = None,
            Some(Membership::In(domain)) => {
                rack.nvldomain_id = ids.get(domain).cloned();
                if are_groups {
                    rack.rack_group_id = Some((*domain).to_owned());
                }
            }
        };
        self.replace("observed", self.live_racks(), place);
        let mut left: HashSet<&str> = HashSet::new();
        let mut held: HashSet<String> = HashSet::new();
        for (rack_id, rack) in &self.racks {
            let mut after = (*rack).clone();
            place(rack_id, &mut after);
            if after.nvldomain_id != rack.nvldomain_id {
                left.extend(rack.nvldomain_id.as_deref());
            }
            held.extend(after.nvldomain_id);
        }
        // Racks without an external_id take part in nothing, but they are in their domains.
        let others = self.present.racks.iter();
        let others = others.filter(|rack| rack.is_live() && rack.external_id.is_none());
        held.extend(others.filter_map(|rack| rack.nvldomain_id.clone()));
        let empty = present.domains.iter().filter(|domain| {
            let id = domain.id.to_string();
            domain.is_live() && left.contains(id.as_str()) && !held.contains(&id)
        });
        let empty: Vec<((), Cow<'_, Domain>)> = empty.map(|d| ((), Cow::Borrowed(d))).collect();
        self.replace("no rack is in it any more", empty, |(), domain| {
            domain.bury(now);
        });
    }

    fn live_racks(&self) -> Vec<(&'a str, Cow<'a, Rack>)> {
        let racks = self.racks.iter();
        racks
            .map(|(id, rack)| (*id, Cow::Borrowed(*rack)))
            .collect()
    }

    fn replace<'r, K: Copy, R: Record + 'r>(
        &mut self,
        why: &'static str,
        rows: Vec<(K, Cow<'r, R>)>,
        change: impl Fn(K, &mut R),
    ) {
        replace_snapshot(&mut self.draft, &mut self.plan.counters, why, rows, change);
    }

    fn write_health(&mut self, entries: &[RackHealth]) {
        let mut health: HashMap<&str, &RackHealth> = HashMap::new();
        for entry in entries {
            if self.rack(entry.rack_id()).is_some() {
                health.insert(entry.rack_id(), entry);
            }
        }
        self.replace("observed", self.live_racks(), |rack_id, rack| {
            rack.health = health.get(rack_id).and_then(|entry| entry.health());
        });
    }
}
