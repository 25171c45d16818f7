//! An expected rack.

use super::identity::{halves, is_invalid, report_duplicate_labels};
use super::named::NamedBytes;
use super::{Sighting, SkippedEntry, WantedRow, owned};
use crate::inventory::{Json, Kind, Pair, RackId};
use crate::mirror::diagnostics::Diagnostic;
use crate::mirror::entry::{CoreEntry, present};
use crate::mirror::policy::{Labels, Policy, Profile};
use smol_str::SmolStr;

/// A rack as Core wants it. The order of the fields is the order in which racks are planned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedRack {
    /// Racks without one come last.
    pub no_rack_id: bool,
    /// Core's name of the rack.
    pub rack_id: Option<RackId>,
    /// Half of the pair.
    pub manufacturer: Option<SmolStr>,
    /// The other half.
    pub serial: Option<SmolStr>,
    /// Core's name, else rack_id, else the pair.
    pub name: String,
    /// Label `chassis.model`.
    pub model: Option<SmolStr>,
    /// Core's description.
    pub text: Option<SmolStr>,
    /// From the `location.*` labels.
    pub location: Option<Json>,
    /// Core's name of the profile.
    pub rack_profile_id: Option<SmolStr>,
}

impl WantedRack {
    /// Appends every field.
    pub fn name_bytes(&self, bytes: &mut NamedBytes) {
        let Self {
            no_rack_id: _,
            rack_id,
            manufacturer,
            serial,
            name,
            model,
            text,
            location,
            rack_profile_id,
        } = self;
        bytes.add("rack_id", rack_id.as_ref().map(RackId::as_str));
        bytes.add("manufacturer", manufacturer.as_ref());
        bytes.add("serial", serial.as_ref());
        bytes.add("name", Some(name));
        bytes.add("model", model.as_ref());
        bytes.add("text", text.as_ref());
        bytes.add("location", location.as_ref().map(Json::as_str));
        bytes.add("rack_profile_id", rack_profile_id.as_ref());
    }

    /// Core's name of the rack.
    pub fn rack_id(&self) -> Option<&str> {
        self.rack_id.as_ref().map(RackId::as_str)
    }
}

impl WantedRow for WantedRack {
    fn pair(&self) -> Option<Pair<'_>> {
        Pair::of(self.manufacturer.as_deref(), self.serial.as_deref())
    }

    fn label(&self) -> String {
        match (self.rack_id(), self.pair()) {
            (Some(rack_id), _) => rack_id.to_owned(),
            (None, Some(pair)) => pair.to_string(),
            (None, None) => self.name.clone(),
        }
    }

    fn sighting(&self) -> Sighting {
        Sighting {
            rack_id: self.rack_id.clone(),
            manufacturer: self.manufacturer.clone(),
            serial: self.serial.clone(),
            mac: None,
        }
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

/// Checks an entry. A rack without rack_id that is kept all the same is worth a warning.
pub fn wanted(
    entry: &CoreEntry,
    policy: &Policy,
) -> Result<(WantedRack, Vec<Diagnostic>), SkippedEntry> {
    let rack_id = entry
        .rack_id
        .as_ref()
        .and_then(|id| RackId::new(id.0.clone()));
    let manufacturer = entry.label("chassis.manufacturer");
    let serial = entry.label("chassis.serial-number");
    let mut reasons = Vec::new();
    let key = match (&rack_id, Pair::of(manufacturer, serial)) {
        (Some(rack_id), _) => rack_id.as_str().to_owned(),
        (None, Some(pair)) => pair.to_string(),
        (None, None) => entry.name().unwrap_or_default().to_owned(),
    };
    let mut report = |code: &str, message: &str| {
        reasons.push(Diagnostic::new(code, Kind::Rack, &key, message));
    };
    report_duplicate_labels(entry, |code, why| report(code, &why));
    let (manufacturer, serial) = halves(manufacturer, serial, |code, why| report(code, &why));
    let pair = Pair::of(manufacturer, serial);
    let mut keep = true;
    if rack_id.as_ref().is_some_and(|id| is_invalid(id.as_str())) {
        keep = false;
        let why = "the rack_id holds a control character: it identifies nothing";
        report("invalid_text", why);
    }
    if rack_id.is_none() {
        // Without labels either, nothing at all would find the row again.
        keep = policy.profile == Profile::NaturalKey && pair.is_some();
        report("rack_without_rack_id", "the rack has no rack_id");
    }
    if pair.is_none() && policy.labels == Labels::Required {
        keep = false;
        report(
            "rack_missing_chassis_labels",
            "chassis.manufacturer or chassis.serial-number is missing",
        );
    }
    let fallback = || match (&rack_id, pair) {
        (Some(rack_id), _) => rack_id.as_str().to_owned(),
        (None, Some(pair)) => format!("{}-{}", pair.manufacturer(), pair.serial()),
        (None, None) => String::new(),
    };
    let name = entry.name().map_or_else(fallback, str::to_owned);
    if !keep {
        let sighting = Sighting {
            rack_id,
            manufacturer: owned(manufacturer),
            serial: owned(serial),
            mac: None,
        };
        return Err(SkippedEntry { reasons, sighting });
    }
    let wanted = WantedRack {
        no_rack_id: rack_id.is_none(),
        name,
        manufacturer: owned(manufacturer),
        serial: owned(serial),
        model: owned(entry.label("chassis.model")),
        text: owned(entry.description()),
        location: location(entry, policy),
        rack_profile_id: entry
            .rack_profile_id
            .as_ref()
            .and_then(|id| owned(present(Some(&id.0)))),
        rack_id,
    };
    Ok((wanted, reasons))
}

fn location(entry: &CoreEntry, policy: &Policy) -> Option<Json> {
    let datacenter = entry.label("location.datacenter");
    let (key, datacenter) = match policy.profile {
        Profile::NaturalKey => ("datacenter", datacenter),
        Profile::HostMac => (
            "data_center",
            entry.label("location.data_center").or(datacenter),
        ),
    };
    Json::object([
        ("region", entry.label("location.region")),
        (key, datacenter),
        ("room", entry.label("location.room")),
        ("position", entry.label("location.position")),
    ])
}
