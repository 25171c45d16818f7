//! How many guests of the fleet store are in which state, by what their agents say: for metrics.

use super::row::GuestState;
use crate::report::facts;
use std::collections::BTreeMap;

/// Values of the fact `provenance`. What an agent says beside them counts as `other`: labels are bounded, whatever a
/// guest says.
const PROVENANCE: [&str; 6] = [
    "ok",
    "none",
    "damaged",
    "unreadable",
    "mapping_missing",
    "mapping_unreadable",
];

/// Further values of labels: another value than those known, and an agent that does not say.
const OTHER: &str = "other";
const UNKNOWN: &str = "unknown";

/// Guests by state, or by how much their number changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GuestTally {
    agents: BTreeMap<Box<str>, i64>,
    provenance: BTreeMap<&'static str, i64>,
    kernels: BTreeMap<&'static str, i64>,
    reboot_needed: i64,
}

impl GuestTally {
    /// Counts a guest (1), or counts it no more (-1).
    pub(super) fn count(&mut self, guest: &GuestState<'_>, by: i64) {
        match self.agents.get_mut(guest.agent_version) {
            Some(counted) => *counted += by,
            None => drop(self.agents.insert(guest.agent_version.into(), by)),
        }
        *self.provenance.entry(provenance(guest)).or_default() += by;
        *self.kernels.entry(kernel(guest)).or_default() += by;
        self.reboot_needed += i64::from(guest.needs_reboot()) * by;
    }

    /// Adds what changed.
    pub(super) fn add(&mut self, change: Self) {
        for (version, by) in change.agents {
            *self.agents.entry(version).or_default() += by;
        }
        self.agents.retain(|_, guests| *guests > 0);
        for (state, by) in change.provenance {
            *self.provenance.entry(state).or_default() += by;
        }
        for (state, by) in change.kernels {
            *self.kernels.entry(state).or_default() += by;
        }
        self.reboot_needed += change.reboot_needed;
    }

    /// Guests of each version of an agent, as the agents call it.
    pub(super) fn agents(&self) -> BTreeMap<Box<str>, u64> {
        let agents = self.agents.iter();
        agents
            .map(|(version, guests)| (version.clone(), guests.unsigned_abs()))
            .collect()
    }

    /// Guests that need a boot.
    pub(super) fn reboot_needed(&self) -> u64 {
        self.reboot_needed.unsigned_abs()
    }

    /// Guests by what is known of where their packages come from; all states, also those of no guest.
    pub(super) fn provenance(&self) -> impl Iterator<Item = ([&'static str; 1], f64)> {
        let states = PROVENANCE.into_iter().chain([OTHER, UNKNOWN]);
        states.map(|state| ([state], of(&self.provenance, state)))
    }

    /// Guests by how the kernel that runs stands to the newest one installed.
    pub(super) fn kernels(&self) -> impl Iterator<Item = ([&'static str; 1], f64)> {
        let states = ["newest", "older", UNKNOWN].into_iter();
        states.map(|state| ([state], of(&self.kernels, state)))
    }
}

fn of(counted: &BTreeMap<&'static str, i64>, state: &str) -> f64 {
    counted.get(state).map_or(0.0, |guests| *guests as f64)
}

fn provenance(guest: &GuestState<'_>) -> &'static str {
    match guest.fact(facts::PROVENANCE) {
        None => UNKNOWN,
        Some(said) => {
            let known = PROVENANCE.into_iter().find(|known| *known == said);
            known.unwrap_or(OTHER)
        }
    }
}

fn kernel(guest: &GuestState<'_>) -> &'static str {
    let fact = |name| guest.fact(name);
    match (fact(facts::KERNEL_RUNNING), fact(facts::KERNEL_INSTALLED)) {
        (Some(running), Some(installed)) if running == installed => "newest",
        (Some(_), Some(_)) => "older",
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::super::FleetLimits;
    use super::super::fixture::{Rig, envelope, report};
    use crate::telemetry::metrics::Page;

    #[test]
    fn guests_are_counted_by_kernel_and_provenance_and_labels_are_bounded() {
        let mut rig = Rig::new(FleetLimits::default());
        let installed = report(&["a 1-1"]);
        let says = |vm: &str, generation, facts: &[(&str, &str)]| {
            let facts = facts.iter();
            let mut envelope = envelope(vm, generation, 1, &installed);
            envelope.facts = facts
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect();
            envelope
        };
        let metrics = |rig: &Rig| {
            let mut page = Page::default();
            rig.fleet.write_metrics(&mut page);
            let text = page.finish();
            let states = text.lines().filter(|line| line.contains("{state="));
            let counted = states.filter(|line| !line.ends_with(" 0"));
            let counted = counted.filter_map(|line| line.strip_prefix("afferent_fleet_"));
            (
                text.lines().filter(|line| line.contains("{state=")).count(),
                counted.map(str::to_owned).collect::<Vec<_>>(),
            )
        };
        rig.put(&says(
            "a",
            1,
            &[
                ("kernel_running", "5-1.x86_64"),
                ("kernel_installed", "5-2.x86_64"),
                ("provenance", "ok"),
            ],
        ));
        rig.put(&says(
            "b",
            1,
            &[
                ("kernel_running", "5-2.x86_64"),
                ("kernel_installed", "5-2.x86_64"),
                ("provenance", "mapping_missing"),
            ],
        ));
        for (n, vm) in ["c", "d"].into_iter().enumerate() {
            let strange = format!("a label of every guest, {n}");
            rig.put(&says(
                vm,
                1,
                &[("kernel_installed", "5-2.x86_64"), ("provenance", &strange)],
            ));
        }
        rig.put(&says("e", 1, &[]));
        let (labels, counted) = metrics(&rig);
        assert_eq!(labels, 11);
        let expected = [
            "kernels{state=\"newest\"} 1",
            "kernels{state=\"older\"} 1",
            "kernels{state=\"unknown\"} 3",
            "provenance{state=\"ok\"} 1",
            "provenance{state=\"mapping_missing\"} 1",
            "provenance{state=\"other\"} 2",
            "provenance{state=\"unknown\"} 1",
        ];
        assert_eq!(counted, expected);
        rig.restart();
        assert_eq!(metrics(&rig).1, expected);
        // A boot into the new kernel comes as facts alone.
        let mut booted = says(
            "a",
            1,
            &[
                ("kernel_running", "5-2.x86_64"),
                ("kernel_installed", "5-2.x86_64"),
                ("provenance", "ok"),
            ],
        );
        booted.report = None;
        rig.put(&booted);
        rig.forget("c");
        rig.refuse(&says("b", 2, &[]));
        let (labels, counted) = metrics(&rig);
        assert_eq!(
            (labels, &counted[..2]),
            (
                11,
                &[
                    "kernels{state=\"newest\"} 2".to_owned(),
                    "kernels{state=\"unknown\"} 2".to_owned()
                ][..]
            )
        );
    }
}
