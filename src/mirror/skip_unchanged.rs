//! A cycle that need not be gone through: what it would say is known.
//!
//! A cycle is a function of what Core says, the knobs, and the tables; ids and the time only go into
//! rows that are written. So one that wrote nothing says the same again, word for word, for as long
//! as all three are the same. That is all that is remembered, and only of cycles without errors:
//! what failed may not fail again. It is kept in memory only: another process, which may be
//! another version, begins with a full cycle.

use super::core::Core;
use super::cycle::{Cycle, begun};
use super::diagnostics::Summary;
use super::policy::Policy;
use crate::inventory::Kind;
use crate::store::Store;

/// What the last cycle over one store and one source said, if it may be said again.
#[derive(Default)]
pub struct SkipUnchanged(Option<Known>);

struct Known {
    given: Given,
    summary: Summary,
}

/// Everything a cycle that writes nothing depends on.
#[derive(PartialEq)]
struct Given {
    /// Digest of everything Core says.
    said: [u8; 32],
    policy: Policy,
    mirror: bool,
    /// Commits the store had seen.
    generation: u64,
}

impl SkipUnchanged {
    /// Runs one cycle, or says what it would say.
    pub fn run_cycle(&mut self, store: &Store, core: &mut dyn Core, cycle: Cycle<'_>) -> Summary {
        core.begin();
        let last = self.0.take();
        let given = core.fingerprint().and_then(|said| {
            Some(Given {
                said,
                policy: *cycle.policy,
                mirror: cycle.mirror,
                generation: generation(store)?,
            })
        });
        let Some(given) = given else {
            return begun(store, core, cycle);
        };
        let is_known = |last: &Known| last.given == given && cycle.approval.is_none();
        if let Some(last) = last.filter(|last| is_known(last) && may_go_on(&cycle)) {
            let summary = Summary {
                run: (cycle.new_id)().to_string(),
                ..last.summary.clone()
            };
            self.0 = Some(last);
            return summary;
        }
        let summary = begun(store, core, cycle);
        let unchanged = generation(store) == Some(given.generation);
        if unchanged && summary.errors.is_empty() {
            let summary = summary.clone();
            self.0 = Some(Known { given, summary });
        }
        summary
    }
}

/// Commits the store has seen, if that can be told.
fn generation(store: &Store) -> Option<u64> {
    super::generation(&store.snapshot().ok()?).ok()
}

/// A cycle that would be refused anything says so itself.
fn may_go_on(cycle: &Cycle<'_>) -> bool {
    let may = |what: &str| cycle.gatekeeper.may_commit(what).is_ok();
    Kind::ALL
        .into_iter()
        .all(|kind| may(kind.name()) && may(&format!("drift:{kind}")))
        && may(super::topology::TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::core::{Device, FileCore, Pull};
    use crate::mirror::cycle::{AlwaysOpen, Gatekeeper, run_cycle};
    use crate::mirror::entry::CoreEntry;
    use crate::mirror::policy::Profile;
    use std::path::PathBuf;
    use uuid::Uuid;

    /// A document, and how often it was looked into.
    struct Counting(FileCore, usize);

    impl Core for Counting {
        fn begin(&mut self) {
            self.0.begin();
        }

        fn expected(&mut self, kind: Kind) -> Pull<CoreEntry> {
            self.1 += 1;
            self.0.expected(kind)
        }

        fn observed(&mut self, kind: Kind) -> Pull<Device> {
            self.0.observed(kind)
        }

        fn source(&self) -> String {
            self.0.source()
        }

        fn fingerprint(&mut self) -> Option<[u8; 32]> {
            self.0.fingerprint()
        }
    }

    struct AlwaysShut;

    impl Gatekeeper for AlwaysShut {
        fn may_commit(&self, _what: &str) -> Result<(), String> {
            Err("shut".into())
        }
    }

    struct Bench {
        directory: tempfile::TempDir,
        store: Store,
        policy: Policy,
        core: Counting,
        skip_unchanged: SkipUnchanged,
    }

    impl Bench {
        fn new(machines: usize) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("core.json");
            let bench = Self {
                store: crate::mirror::open(directory.path()).unwrap(),
                policy: Policy::of(Profile::NaturalKey),
                core: Counting(FileCore::at_path(path, None), 0),
                skip_unchanged: SkipUnchanged::default(),
                directory,
            };
            bench.say(machines, "");
            bench
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("core.json")
        }

        /// Machines, in racks that nobody knows, and one that lacks its serial number.
        fn say(&self, machines: usize, more: &str) {
            let mut entries = vec![r#"{"bmc_mac_address":"02:00:00:00:01:00"}"#.to_owned()];
            entries.extend((0..machines).map(|n| {
                format!(
                    r#"{{"bmc_mac_address":"02:00:00:00:00:{n:02x}","chassis_serial_number":"S{n}",
                    "manufacturer":"M","rack_id":"nowhere"}}"#
                )
            }));
            let list = entries.join(",");
            let text = format!(r#"{{"expected_machines":[{list}]{more}}}"#);
            std::fs::write(self.path(), text).unwrap();
        }

        /// Whether the cycle was gone through, and what it says.
        fn cycle(&mut self, gatekeeper: &dyn Gatekeeper) -> (bool, Summary) {
            let looked = self.core.1;
            let cycle = Cycle {
                policy: &self.policy,
                approval: None,
                mirror: true,
                now: "2026-11-21T10:00:00.000Z".into(),
                new_id: &mut Uuid::new_v4,
                gatekeeper,
            };
            let said = self
                .skip_unchanged
                .run_cycle(&self.store, &mut self.core, cycle);
            (self.core.1 > looked, said)
        }

        /// The same cycle without it.
        fn full(&mut self) -> Summary {
            let cycle = Cycle {
                policy: &self.policy,
                approval: None,
                mirror: true,
                now: "2026-11-22T10:00:00.000Z".into(),
                new_id: &mut Uuid::new_v4,
                gatekeeper: &AlwaysOpen,
            };
            run_cycle(&self.store, &mut self.core, cycle)
        }
    }

    fn without_run(summary: Summary) -> Summary {
        Summary {
            run: String::new(),
            ..summary
        }
    }

    /// Warnings and withheld deletes are said in every cycle for as long as they hold, or somebody
    /// believes that they do not hold any more.
    #[test]
    fn a_cycle_that_is_not_gone_through_says_what_a_full_one_says() {
        let mut bench = Bench::new(40);
        bench.cycle(&AlwaysOpen);
        // Most of them are missing: the guard withholds that, and writes which once.
        bench.say(5, r#","expected_racks":[]"#);
        for _ in 0..2 {
            assert!(bench.cycle(&AlwaysOpen).0);
        }
        let (gone_through, first) = bench.cycle(&AlwaysOpen);
        let (_, second) = bench.cycle(&AlwaysOpen);
        assert!(!gone_through);
        assert_ne!(first.run, second.run);
        assert_eq!(second.withheld.len(), 35);
        assert!(second.warnings.len() > 5, "{:?}", second.warnings);
        assert_eq!(second.types["Compute"].skipped_invalid, 1);
        let full = without_run(bench.full());
        assert_eq!(without_run(first), full);
        assert_eq!(without_run(second), full);
    }

    #[test]
    fn whatever_is_not_the_same_makes_the_cycle_be_gone_through() {
        let mut bench = Bench::new(5);
        let settle = |bench: &mut Bench| {
            while bench.cycle(&AlwaysOpen).0 {}
        };
        settle(&mut bench);
        // Core says something else.
        bench.say(6, "");
        let (gone_through, summary) = bench.cycle(&AlwaysOpen);
        assert!(gone_through);
        assert_eq!(summary.types["Compute"].inserted, 1);
        settle(&mut bench);
        // Another knob.
        bench.policy.unknown_position = -1;
        let (gone_through, summary) = bench.cycle(&AlwaysOpen);
        assert!(gone_through);
        assert_eq!(summary.types["Compute"].updated, 6);
        settle(&mut bench);
        // Somebody else wrote.
        let mut tables = crate::mirror::dump::dump(&bench.store.snapshot().unwrap()).unwrap();
        tables["component"][0]["name"] = "other".into();
        let now = "2026-11-21T10:00:00.000Z".to_owned();
        let loaded = "test".to_owned();
        crate::mirror::dump::load(&bench.store, tables, loaded, now, &mut Uuid::new_v4).unwrap();
        let (gone_through, summary) = bench.cycle(&AlwaysOpen);
        assert!(gone_through);
        assert_eq!(summary.types["Compute"].updated, 1);
        settle(&mut bench);
        // The service is to stop.
        let (gone_through, summary) = bench.cycle(&AlwaysShut);
        assert!(gone_through);
        assert_eq!(summary.errors[0].code, "tx_failed:Compute");
    }

    #[test]
    fn what_failed_is_tried_again() {
        let mut bench = Bench::new(5);
        bench.say(5, r#","expected_racks":{"error":"no"}"#);
        for _ in 0..4 {
            let (gone_through, summary) = bench.cycle(&AlwaysOpen);
            assert!(gone_through);
            assert_eq!(summary.errors[0].code, "pull_failed:rack");
        }
        std::fs::remove_file(bench.path()).unwrap();
        for _ in 0..2 {
            assert!(bench.cycle(&AlwaysOpen).0);
        }
    }
}
