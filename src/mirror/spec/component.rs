//! An expected machine, switch or power shelf: they differ only in what their serial number is
//! called.

use super::identity::{halves, report_duplicate_labels};
use super::named::NamedBytes;
use super::{Sighting, SkippedEntry, WantedRow, owned};
use crate::inventory::{Kind, Mac, Pair, RackId};
use crate::mirror::diagnostics::Diagnostic;
use crate::mirror::entry::{CoreEntry, NumberText};
use crate::mirror::policy::{Identity, Policy, Profile};
use smol_str::SmolStr;
use std::net::IpAddr;

/// A component as Core wants it. The order of the fields is the order of planning where the pair
/// decides; `by_mac` is the one where the address does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedComponent {
    /// Half of the pair.
    pub manufacturer: Option<SmolStr>,
    /// The other half.
    pub serial: Option<SmolStr>,
    /// Its Host BMC.
    pub mac: Mac,
    /// Where the BMC answers.
    pub ip: Address,
    /// Core's name, else the serial number; `None`: no name at all, the stored one stays.
    pub name: Option<SmolStr>,
    /// Label `model`.
    pub model: Option<SmolStr>,
    /// Slot, tray and host.
    pub positions: [Position; 3],
    /// The rack it is in.
    pub rack_id: Option<RackId>,
    /// Core's description.
    pub description: Option<SmolStr>,
}

/// Where a BMC answers, as far as Core knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// Here, or nowhere.
    At(Option<IpAddr>),
    /// What came is no address: the stored one stays.
    Malformed,
}

/// A slot, tray or host position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// This one.
    At(i64),
    /// Core does not say.
    Unknown,
    /// What came is no integer: the stored one stays.
    Malformed,
}

impl WantedComponent {
    /// Appends every field.
    pub fn name_bytes(&self, bytes: &mut NamedBytes) {
        let Self {
            manufacturer,
            serial,
            mac,
            ip,
            name,
            model,
            positions,
            rack_id,
            description,
        } = self;
        bytes.add("manufacturer", manufacturer.as_ref());
        bytes.add("serial", serial.as_ref());
        bytes.add("mac", Some(mac.bytes()));
        match ip {
            Address::At(ip) => bytes.add_text("ip", *ip),
            Address::Malformed => bytes.add("ip malformed", None::<&str>),
        }
        bytes.add("name", name.as_ref());
        bytes.add("model", model.as_ref());
        for (name, position) in ["slot", "tray", "host"].into_iter().zip(positions) {
            match position {
                Position::At(position) => bytes.add_text(name, Some(position)),
                Position::Unknown => bytes.add(name, None::<&str>),
                Position::Malformed => bytes.add(name, Some("malformed")),
            }
        }
        bytes.add("rack_id", rack_id.as_ref().map(RackId::as_str));
        bytes.add("description", description.as_ref());
    }
}

impl WantedRow for WantedComponent {
    fn pair(&self) -> Option<Pair<'_>> {
        Pair::of(self.manufacturer.as_deref(), self.serial.as_deref())
    }

    fn label(&self) -> String {
        self.pair()
            .map_or_else(|| self.mac.to_string(), |pair| pair.to_string())
    }

    fn sighting(&self) -> Sighting {
        Sighting {
            rack_id: None,
            manufacturer: self.manufacturer.clone(),
            serial: self.serial.clone(),
            mac: Some(self.mac),
        }
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// Checks an entry of `kind`. Something may be worth a warning although the entry is kept.
pub fn wanted(
    entry: &CoreEntry,
    kind: Kind,
    policy: &Policy,
) -> Result<(WantedComponent, Vec<Diagnostic>), SkippedEntry> {
    let sent_manufacturer = own_or_label(entry.manufacturer.as_deref(), entry, "manufacturer");
    let sent_serial = crate::mirror::entry::present(entry.serial_number.as_deref());
    let address = entry.bmc_mac_address.as_deref().map(str::trim);
    let address = address.filter(|address| !address.is_empty());
    let key = || {
        let pair = Pair::of(sent_manufacturer, sent_serial);
        match (pair, sent_serial, address) {
            (Some(pair), _, _) => pair.to_string(),
            (None, Some(text), _) | (None, None, Some(text)) => text.to_owned(),
            (None, None, None) => entry.name().unwrap_or_default().to_owned(),
        }
    };
    let mut reports = Vec::new();
    let mut report = |code: &str, message: String| {
        reports.push(Diagnostic::new(code, kind, key(), message));
    };
    report_duplicate_labels(entry, &mut report);
    let (manufacturer, serial) = halves(sent_manufacturer, sent_serial, &mut report);
    let mut keep = true;
    let by_pair = policy.identity == Identity::Pair;
    let mac = match address.map(str::parse::<Mac>) {
        Some(Ok(mac)) => Some(mac),
        Some(Err(error)) => {
            keep = false;
            report("invalid_mac", format!("the BMC address is {error}"));
            None
        }
        None => {
            keep = false;
            let code = if by_pair {
                "component_missing_identity"
            } else {
                "component_missing_mac"
            };
            report(code, "there is no BMC address".into());
            None
        }
    };
    if by_pair && Pair::of(manufacturer, serial).is_none() {
        keep = false;
        report(
            "component_missing_identity",
            "manufacturer or serial number is missing".into(),
        );
    }
    let (Some(mac), true) = (mac, keep) else {
        let sighting = Sighting {
            rack_id: None,
            manufacturer: owned(manufacturer),
            serial: owned(serial),
            mac,
        };
        return Err(SkippedEntry {
            reasons: reports,
            sighting,
        });
    };
    let ip = match entry.bmc_ip() {
        None => Address::At(None),
        Some(text) => text.parse().map_or_else(
            |_| {
                report("invalid_ip", "the BMC's IP address is none".into());
                Address::Malformed
            },
            |ip| Address::At(Some(ip)),
        ),
    };
    let fields = [
        ("slot_id", &entry.slot_id),
        ("tray_idx", &entry.tray_idx),
        ("host_id", &entry.host_id),
    ];
    let positions = fields.map(|(label, own)| {
        let own = own.as_ref().map(|NumberText(text)| text.as_str());
        let position = position(own_or_label(own, entry, label), policy.profile);
        if position == Position::Malformed {
            report("malformed_int_label", format!("{label} is no integer"));
        }
        position
    });
    let wanted = WantedComponent {
        manufacturer: owned(manufacturer),
        serial: owned(serial),
        mac,
        ip,
        name: owned(entry.name().or(serial)),
        model: owned(own_or_label(entry.model.as_deref(), entry, "model")),
        positions,
        rack_id: entry
            .rack_id
            .as_ref()
            .and_then(|id| RackId::new(id.0.clone())),
        description: owned(entry.description()),
    };
    Ok((wanted, reports))
}

fn own_or_label<'a>(own: Option<&'a str>, entry: &'a CoreEntry, label: &str) -> Option<&'a str> {
    crate::mirror::entry::present(own).or_else(|| entry.label(label))
}

/// A 64-bit integer in ASCII digits with an optional sign and nothing around it.
fn position(text: Option<&str>, profile: Profile) -> Position {
    let Some(text) = text else {
        return Position::Unknown;
    };
    match text.parse() {
        Ok(number) if number < 0 && profile == Profile::HostMac => Position::Malformed,
        Ok(number) => Position::At(number),
        Err(_) => Position::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Position::{At, Malformed, Unknown};

    #[test]
    fn only_plain_integers_are_positions() {
        let read = |text| position(Some(text), Profile::NaturalKey);
        assert_eq!(read("7"), At(7));
        assert_eq!(read("+5"), At(5));
        assert_eq!(read("-1"), At(-1));
        assert_eq!(read("9223372036854775807"), At(i64::MAX));
        for text in [
            "abc",
            "3.14",
            " 4 ",
            "9223372036854775808",
            "0x1",
            "1e3",
            "1_0",
            "٣",
            "+",
        ] {
            assert_eq!(read(text), Malformed, "{text}");
        }
        assert_eq!(position(None, Profile::NaturalKey), Unknown);
        assert_eq!(position(Some("-1"), Profile::HostMac), Malformed);
    }
}
