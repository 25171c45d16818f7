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

use super::change::{Change, Draft, Op};
use super::core::{DomainMember, Pull, RackGroup, RackHealth, Topology};
use super::diagnostics::{Counters, Diagnostic};
use super::policy::{Empty, Policy};
use crate::inventory::{Domain, Rack};
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
    pub(super) counters: Counters,
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
        let mut ids: HashMap<&str, String> = HashMap::new();
        for external_id in named {
            let cluster = clusters.and_then(|clusters| clusters.get(external_id).copied());
            let id = self.write_domain(external_id, cluster, new_id);
            ids.insert(external_id, id.to_string());
        }
        let mut left: HashSet<&str> = HashSet::new();
        let mut held: HashSet<String> = HashSet::new();
        for (rack_id, rack) in self.racks.clone() {
            let mut after = rack.clone();
            match memberships.get(rack_id) {
                None | Some(Membership::Keep) => {}
                Some(Membership::None) => after.nvldomain_id = None,
                Some(Membership::In(domain)) => {
                    after.nvldomain_id = ids.get(domain).cloned();
                    if are_groups {
                        after.rack_group_id = Some((*domain).to_owned());
                    }
                }
            }
            held.extend(after.nvldomain_id.clone());
            if after.nvldomain_id != rack.nvldomain_id {
                left.extend(rack.nvldomain_id.as_deref());
            }
            if after != *rack {
                self.plan.counters.updated += 1;
                *self.draft.edit(rack, Op::Observe, "observed") = after;
            }
        }
        // Racks without an external_id take part in nothing, but they are in their domains.
        let others = self.present.racks.iter();
        let others = others.filter(|rack| rack.is_live() && rack.external_id.is_none());
        held.extend(others.filter_map(|rack| rack.nvldomain_id.clone()));
        for domain in &self.present.domains {
            let id = domain.id.to_string();
            if domain.is_live() && left.contains(id.as_str()) && !held.contains(&id) {
                self.plan.counters.soft_deleted += 1;
                let mut after = domain.clone();
                after.deleted_at = Some(self.now.to_owned());
                let why = "no rack is in it any more";
                self.put(Some(domain), &after, Op::SoftDelete, why);
            }
        }
    }

    /// The id of the domain, which is there afterwards. `cluster` is `None` where nothing is known of it.
    fn write_domain(
        &mut self,
        external_id: &str,
        cluster: Option<Option<Uuid>>,
        new_id: &mut dyn FnMut() -> Uuid,
    ) -> Uuid {
        let domains = &self.present.domains;
        let found = domains
            .iter()
            .find(|domain| domain.external_id.as_deref() == Some(external_id));
        let Some(stored) = found else {
            self.plan.counters.inserted += 1;
            let id = new_id();
            let row = Domain {
                nmxc_cluster_id: cluster.flatten(),
                ..Domain::new(id, external_id.to_owned(), self.now)
            };
            self.put(None, &row, Op::Insert, "observed");
            return id;
        };
        let mut after = stored.clone();
        after.deleted_at = None;
        if let Some(cluster) = cluster {
            after.nmxc_cluster_id = cluster;
        }
        if after != *stored {
            self.plan.counters.updated += 1;
            let op = if stored.is_live() {
                Op::Observe
            } else {
                self.plan.counters.resurrected += 1;
                Op::Resurrect
            };
            self.put(Some(stored), &after, op, "observed");
        }
        stored.id
    }

    fn put(&mut self, before: Option<&Domain>, after: &Domain, op: Op, why: &'static str) {
        self.draft.put(before, after, [(op, why)]);
    }

    fn write_health(&mut self, entries: &[RackHealth]) {
        let mut health: HashMap<&str, &RackHealth> = HashMap::new();
        for entry in entries {
            if self.rack(entry.rack_id()).is_some() {
                health.insert(entry.rack_id(), entry);
            }
        }
        for (rack_id, rack) in self.racks.clone() {
            let health = health.get(rack_id).and_then(|entry| entry.health());
            if health != rack.health {
                self.plan.counters.updated += 1;
                let row = self.draft.edit(rack, Op::Observe, "observed");
                row.health = health;
            }
        }
    }
}
