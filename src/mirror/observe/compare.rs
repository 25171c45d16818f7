//! What is expected beside what was observed, as drift rows.

use super::{Checked, PresentDevices};
use crate::inventory::{Component, ComponentType, Drift, DriftType, FieldDiff, Kind};
use crate::mirror::change::{Draft, Op};
use crate::mirror::core::{Device, ObservedNumber};
use crate::mirror::policy::{Policy, Profile};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// What the actual value of a field is when nothing was observed.
const MISSING: &str = "<missing>";

/// The drift rows there should be, without ids.
pub(super) fn compare(
    kind: Kind,
    component_type: ComponentType,
    hosts: &[Checked<'_>],
    links: &HashMap<usize, usize>,
    present: &PresentDevices,
    policy: &Policy,
    now: &str,
) -> Vec<Drift> {
    let drift =
        |drift_type, component: Option<&Component>, external_id: Option<&str>, diffs| Drift {
            id: Uuid::nil(),
            component_id: component.map(|c| c.id),
            external_id: external_id.map(str::to_owned),
            component_type: Some(component_type),
            drift_type,
            diffs,
            checked_at: Some(now.to_owned()),
        };
    let linked: HashSet<usize> = links.values().copied().collect();
    let given = links.keys().filter_map(|n| hosts.get(*n)?.device.id());
    let given: HashSet<&str> = given.collect();
    let mut drifts = Vec::new();
    for (i, component) in present.components.iter().enumerate() {
        if component.is_live() && !linked.contains(&i) {
            // The id by which it was known, unless that is another's now.
            let id = component.external_id.as_deref();
            let id = id.filter(|id| kind == Kind::Compute && !given.contains(id));
            let missing = DriftType::MissingInActual;
            drifts.push(drift(missing, Some(component), id, Vec::new()));
        }
    }
    for (n, host) in hosts.iter().enumerate() {
        let id = host.device.id();
        let Some(component) = links.get(&n).and_then(|i| present.components.get(*i)) else {
            drifts.push(drift(DriftType::MissingInExpected, None, id, Vec::new()));
            continue;
        };
        if kind != Kind::Compute {
            continue;
        }
        let diffs = differences(component, host.device, policy);
        if !diffs.is_empty() {
            drifts.push(drift(DriftType::Mismatch, Some(component), id, diffs));
        }
    }
    drifts
}

fn differences(component: &Component, device: &Device, policy: &Policy) -> Vec<FieldDiff> {
    let mut diffs = Vec::new();
    let natural = policy.profile == Profile::NaturalKey;
    let fields = ["slot_id", "tray_index", "host_id"];
    let expected = [component.slot_id, component.tray_index, component.host_id];
    for ((field, expected), actual) in fields.into_iter().zip(expected).zip(device.positions()) {
        if expected == policy.unknown_position {
            continue;
        }
        let actual = match actual {
            ObservedNumber::NotCarried => continue,
            ObservedNumber::At(actual) if actual == expected => continue,
            ObservedNumber::At(actual) => actual.to_string(),
            // Where 0 may mean that nobody knows, it proves nothing; nor does a position that was
            // observed in part.
            ObservedNumber::Unplaced if natural && expected <= 0 => continue,
            ObservedNumber::Blank if natural => continue,
            ObservedNumber::Unplaced | ObservedNumber::Blank => MISSING.to_owned(),
        };
        diffs.push(FieldDiff {
            field_name: field.to_owned(),
            expected_value: expected.to_string(),
            actual_value: actual,
        });
    }
    // Where the BMC is the identity, a changed chassis is not a difference.
    let serials = (component.serial_number.as_deref(), device.serial());
    if let (Some(expected), Some(actual)) = serials
        && natural
        && !expected.is_empty()
        && expected != actual
    {
        diffs.push(FieldDiff {
            field_name: "serial_number".to_owned(),
            expected_value: expected.to_owned(),
            actual_value: actual.to_owned(),
        });
    }
    diffs
}

/// Puts `drifts` in the place of the type's rows. A difference that is there already keeps its
/// row, so that observing the same again writes nothing.
pub(super) fn replace(
    component_type: ComponentType,
    drifts: &[Drift],
    present: &PresentDevices,
    draft: &mut Draft,
    new_id: &mut dyn FnMut() -> Uuid,
) {
    type Content<'a> = (Option<Uuid>, Option<&'a str>, DriftType, &'a [FieldDiff]);
    fn content(drift: &Drift) -> Content<'_> {
        let external_id = drift.external_id.as_deref();
        (
            drift.component_id,
            external_id,
            drift.drift_type,
            &drift.diffs,
        )
    }
    let type_of: HashMap<Uuid, ComponentType> =
        present.components.iter().map(|c| (c.id, c.kind)).collect();
    let mut kept: HashSet<Content<'_>> = HashSet::new();
    let wanted: HashSet<Content<'_>> = drifts.iter().map(content).collect();
    for stored in &present.drifts {
        // A row without a type belongs to that of its component, or, before there were types,
        // to machines.
        let of = stored.component_type.or_else(|| {
            stored
                .component_id
                .map_or(Some(ComponentType::Compute), |id| type_of.get(&id).copied())
        });
        if of != Some(component_type) {
            continue;
        }
        let same = stored.component_type.is_some() && wanted.contains(&content(stored));
        if !(same && kept.insert(content(stored))) {
            let why = "not observed any more";
            draft.remove(stored, Op::DriftDelete, why);
        }
    }
    for drift in drifts {
        if kept.insert(content(drift)) {
            let row = Drift {
                id: new_id(),
                ..drift.clone()
            };
            draft.put(None, row, &[(Op::DriftInsert, "observed")]);
        }
    }
}
