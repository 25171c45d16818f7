//! The fleet store of a sensor, asked as people ask it: what is installed, and what was at an earlier time.

use crate::guest::Packages;
use crate::sensor::Sensor;
use crate::world::World;
use afferent::clock::WallTime;
use afferent::sense::fleet::query::FleetQuery;
use afferent::store::Store;
use serde_json::Value;

/// Earlier states of each guest that are asked for, the newest.
const STATES: usize = 20;

/// The packages of a guest, now or as they were then; `None` where the store does not know.
pub(crate) fn packages_of(store: &Store, vm: &str, at: Option<WallTime>) -> Option<Packages> {
    let question = FleetQuery::Show {
        vm: vm.to_owned(),
        at: at.map(WallTime::unix_ms),
    };
    let answer = question.ask(store, &|_| None);
    let answer: Value = serde_json::to_value(&answer).unwrap();
    let installed = answer["installed"].as_array()?;
    let package = |package: &Value| {
        let version = package["version"].as_str().unwrap();
        let version = version.trim_end_matches("-1").parse().unwrap();
        (package["name"].as_str().unwrap().to_owned(), version)
    };
    Some(installed.iter().map(package).collect())
}

impl World {
    /// Invariant 2: what a sensor's fleet store says of its guests is what is installed.
    pub(crate) fn check_fleet(&self) {
        for sensor in &self.sensors {
            let Some(store) = sensor.store() else {
                continue;
            };
            for vm in sensor.listed.keys() {
                let guest = self.guests[vm].lock().unwrap();
                let said = packages_of(&store, vm, None);
                if said.as_ref() != Some(&guest.packages) {
                    let what = format!(
                        "invariant 2: the fleet store of {} has {said:?}, installed is {:?}",
                        sensor.name, guest.packages
                    );
                    self.central.broken(vm, &what);
                }
            }
        }
    }

    /// Invariant 11: the change log, replayed to the time of a document that Central took, gives its packages.
    /// Says how many there were that it still reaches.
    pub(crate) fn check_fleet_history(&self) -> usize {
        self.sensors.iter().map(|it| self.check_history(it)).sum()
    }

    fn check_history(&self, sensor: &Sensor) -> usize {
        let Some(store) = sensor.store() else {
            return 0;
        };
        let mut reached = 0;
        for vm in sensor.listed.keys() {
            let taken = self.central.taken_of(&sensor.name, vm);
            for (at, packages) in taken.iter().rev().take(STATES) {
                let Some(said) = packages_of(&store, vm, Some(*at)) else {
                    break;
                };
                reached += 1;
                if said != *packages {
                    let what = format!(
                        "invariant 11: at {at} it had {packages:?}, and the change log of {} says {said:?}",
                        sensor.name
                    );
                    self.central.broken(vm, &what);
                }
            }
        }
        reached
    }
}
