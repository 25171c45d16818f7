//! Guests for the tests of the fleet store.

use super::row::tests::key;
use super::{Fleet, FleetLimits, FleetTx};
use crate::clock::WallTime;
use crate::report::{
    Digest, Envelope, Evr, Facts, GuestId, Origin, Package, Report, Trigger, VmId,
};
use crate::store::{Store, StoreError, TxError};
use std::collections::HashMap;

/// A report of packages written as `name version`.
pub(in crate::sense) fn report(packages: &[&str]) -> Report {
    let packages = packages.iter().map(|text| {
        let (name, version) = text.split_once(' ').unwrap();
        Package {
            name: name.into(),
            evr: Evr::parse(version),
            arch: Some("x86_64".into()),
            vendor: Some("v".into()),
            origin: Origin::Repository("base".into()),
            ..Package::default()
        }
    });
    let mut report = Report {
        packages: packages.collect(),
        ..Report::default()
    };
    (report.distribution.id, report.distribution.version_id) = ("rhel".into(), "9.4".into());
    report.normalize();
    report
}

/// The report as a document that was seen at this second.
pub(in crate::sense) fn envelope<'a>(
    vm: &str,
    generation: u32,
    at: u64,
    report: &'a Report,
) -> Envelope<'a> {
    let facts: Facts = [
        ("kernel_running", "5-2.x86_64"),
        ("scan_trigger", "reactive"),
        ("reboot_needed", ["no", "kernel"][(generation % 2) as usize]),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    Envelope {
        vm: vm.parse().unwrap(),
        address: "unix:/x".into(),
        guest_id: Some(GuestId::of_machine(vm)),
        key: key(generation),
        digest: report.digest(),
        seen_at: second(at),
        trigger: Trigger::Reactive,
        generated_at: second(at),
        agent_version: "0.2.0".into(),
        facts,
        report: Some(report.view()),
    }
}

pub(in crate::sense) fn second(at: u64) -> WallTime {
    WallTime::from_unix_ms(at * 1000)
}

/// A store with its fleet, and what a sensor would know of its guests.
pub(in crate::sense) struct Rig {
    pub(super) dir: tempfile::TempDir,
    pub(in crate::sense) store: Store,
    pub(super) fleet: Fleet,
    pub(super) known: HashMap<VmId, Digest>,
    pub(super) limits: FleetLimits,
}

impl Rig {
    pub(in crate::sense) fn new(limits: FleetLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let known = HashMap::new();
        let fleet = Fleet::load(&store, limits, &known).unwrap();
        Self {
            dir,
            store,
            fleet,
            known,
            limits,
        }
    }

    /// As after a start.
    pub(super) fn restart(&mut self) {
        // The file is held until it is closed.
        let other = tempfile::tempdir().unwrap();
        self.store = open(&other);
        self.store = open(&self.dir);
        self.fleet = Fleet::load(&self.store, self.limits, &self.known).unwrap();
    }

    pub(in crate::sense) fn put(&mut self, envelope: &Envelope<'_>) {
        let document = self.fleet.prepare(envelope).unwrap();
        self.write(|tx| tx.put(&envelope.vm, &document)).unwrap();
        if envelope.report.is_some() {
            self.known.insert(envelope.vm.clone(), envelope.digest);
        }
    }

    pub(super) fn forget(&mut self, vm: &str) {
        let vm = vm.parse().unwrap();
        self.write(|tx| tx.forget(&vm)).unwrap();
        self.known.remove(&vm);
    }

    pub(super) fn write(
        &self,
        change: impl FnOnce(&mut FleetTx<'_, '_>) -> Result<(), TxError>,
    ) -> Result<(), StoreError> {
        let staged = self.store.write(|tx| {
            let mut fleet_tx = FleetTx::begin(&self.fleet, tx)?;
            change(&mut fleet_tx)?;
            fleet_tx.end()
        })?;
        self.fleet.committed(staged);
        Ok(())
    }

    /// The same, but the disk refuses.
    pub(super) fn refuse(&self, envelope: &Envelope<'_>) {
        let document = self.fleet.prepare(envelope).unwrap();
        let refused = self.store.write(|tx| {
            let mut fleet_tx = FleetTx::begin(&self.fleet, tx)?;
            fleet_tx.put(&envelope.vm, &document)?;
            fleet_tx.end()?;
            Err::<(), _>(TxError::Failed("full".into()))
        });
        assert!(refused.is_err());
    }
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), "sense.redb", 1 << 20)
        .unwrap()
        .store
}
