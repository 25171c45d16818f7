//! What sensors tell of changes: `changes` of documents, and events, which Central follows.

use crate::central::Central;
use crate::guest::Packages;
use afferent::clock::WallTime;
use afferent::sense::deliver::sink::Delivery;
use serde_json::Value;

/// What the events of a sensor led to, of one guest.
#[derive(Clone)]
pub(crate) struct Followed {
    seen_at: WallTime,
    report: Value,
    packages: Packages,
}

impl Central {
    /// Invariant 11, of a document that Central takes: its changes lead to its packages from those of a report of the
    /// guest that was taken before, and so do the events that came, from the first one on.
    pub(crate) fn check_changes(
        &self,
        sensor: &str,
        delivery: &Delivery,
        document: &Value,
        packages: &Packages,
    ) {
        let vm = &delivery.vm;
        if let Some(changes) = document.get("changes") {
            let since = &changes["since"];
            let key = format!("{vm}/{}/{}/", since["epoch"], since["generation"]);
            let before = self.contents_of(&key);
            let is_right = |before: &Packages| applied(before, changes).as_ref() == Some(packages);
            if !before.iter().any(is_right) {
                let what =
                    format!("invariant 11: {changes} do not lead from {before:?} to {packages:?}");
                self.broken(vm, &what);
            }
        }
        let of = (sensor.to_owned(), vm.clone());
        let mut followed = self.with(|state| state.followed.get(&of).cloned());
        for event in &delivery.events {
            let event: Value = serde_json::from_slice(&event.body).expect("events are JSON");
            match follow(followed.as_ref(), &event) {
                Ok(after) => followed = Some(after),
                Err(what) => {
                    self.broken(vm, &format!("invariant 11: {what}: {event}"));
                    return;
                }
            }
        }
        let Some(followed) = followed else {
            self.broken(vm, "invariant 11: a document came without an event");
            return;
        };
        if followed.packages != *packages {
            let what = format!(
                "invariant 11: events lead to {:?}, and the report of {sensor} has {packages:?}",
                followed.packages
            );
            self.broken(vm, &what);
        }
        self.with(|state| state.followed.insert(of, followed));
    }
}

/// What is known after an event; one that came before changes nothing.
fn follow(before: Option<&Followed>, event: &Value) -> Result<Followed, String> {
    let meta = &event["meta"];
    let seen_at: WallTime = meta["seen_at"].as_str().unwrap().parse().unwrap();
    if let Some(before) = before
        && seen_at <= before.seen_at
    {
        return Ok(before.clone());
    }
    let packages = match (event["type"].as_str(), before) {
        (Some("state"), _) => list(&event["packages"], "version").into_iter().collect(),
        (_, None) => return Err("the first event is no state".into()),
        (_, Some(before)) => {
            let changes = &event["changes"];
            if changes["since"] != before.report {
                return Err(format!("it does not lead on from {}", before.report));
            }
            let after = applied(&before.packages, changes);
            after.ok_or_else(|| format!("it is no change of {:?}", before.packages))?
        }
    };
    let report = serde_json::json!({ "epoch": meta["epoch"], "generation": meta["generation"] });
    Ok(Followed {
        seen_at,
        report,
        packages,
    })
}

/// The packages after these changes; `None`: they are not changes of these packages.
fn applied(before: &Packages, changes: &Value) -> Option<Packages> {
    let mut packages = before.clone();
    for (name, version) in list(&changes["removed"], "version") {
        (packages.remove(&name)? == version).then_some(())?;
    }
    for kind in ["upgraded", "downgraded", "changed"] {
        let from = list(&changes[kind], "from");
        for ((name, to), (_, from)) in list(&changes[kind], "to").into_iter().zip(from) {
            (packages.insert(name, to)? == from).then_some(())?;
        }
    }
    for (name, version) in list(&changes["added"], "version") {
        packages.insert(name, version).is_none().then_some(())?;
    }
    Some(packages)
}

/// Names and versions in a list.
fn list(packages: &Value, version: &str) -> Vec<(String, u32)> {
    let packages = packages.as_array().unwrap().iter();
    let package = |package: &Value| {
        let name = package["name"].as_str().unwrap().to_owned();
        let version = package[version].as_str().unwrap();
        (name, version.trim_end_matches("-1").parse().unwrap())
    };
    packages.map(package).collect()
}
