//! Entries as Core sent them: untrusted, and tolerant of both dialects.
//!
//! Fields may be spelled in snake_case or camelCase, an id may be text or `{"id": ..}`, labels a
//! map or a list, a number text. Unknown fields are ignored, credentials among them: they are
//! never even taken out of the text.

pub mod list;
pub mod quick;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// One expected rack, machine, switch or shelf.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CoreEntry {
    /// Core's id of the entry; only to notice one that comes twice.
    pub id: Option<IdText>,
    /// Site the entry belongs to.
    #[serde(alias = "siteId")]
    pub site_id: Option<IdText>,
    /// Rack it is, or is in.
    #[serde(alias = "rackId")]
    pub rack_id: Option<IdText>,
    /// Profile of a rack.
    #[serde(alias = "rackProfileId")]
    pub rack_profile_id: Option<IdText>,
    /// Name; `metadata.name` in the file dialect.
    pub name: Option<SmolStr>,
    /// Description; `metadata.description` in the file dialect.
    pub description: Option<SmolStr>,
    /// Labels; `metadata.labels` in the file dialect.
    pub labels: Option<Labels>,
    /// Name, description and labels as Core's own API has them.
    pub metadata: Option<Metadata>,
    /// Address of the Host BMC.
    #[serde(alias = "bmcMacAddress")]
    pub bmc_mac_address: Option<SmolStr>,
    /// Where the BMC answers.
    #[serde(alias = "bmcIpAddress")]
    pub bmc_ip_address: Option<SmolStr>,
    /// The same, as power shelves once had it; both may be there.
    #[serde(alias = "ipAddress")]
    pub ip_address: Option<SmolStr>,
    /// Serial number, under the name it has for this kind.
    #[serde(
        alias = "chassis_serial_number",
        alias = "chassisSerialNumber",
        alias = "switch_serial_number",
        alias = "switchSerialNumber",
        alias = "shelf_serial_number",
        alias = "shelfSerialNumber"
    )]
    pub serial_number: Option<SmolStr>,
    /// Manufacturer; a label in the file dialect.
    pub manufacturer: Option<SmolStr>,
    /// Model; a label in the file dialect.
    pub model: Option<SmolStr>,
    /// Position; a label in the file dialect.
    #[serde(alias = "slotId")]
    pub slot_id: Option<NumberText>,
    /// Position; a label in the file dialect.
    #[serde(alias = "trayIdx")]
    pub tray_idx: Option<NumberText>,
    /// Position; a label in the file dialect.
    #[serde(alias = "hostId")]
    pub host_id: Option<NumberText>,
}

/// What the file dialect wraps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Name.
    pub name: Option<SmolStr>,
    /// Description.
    pub description: Option<SmolStr>,
    /// Labels.
    pub labels: Option<Labels>,
}

impl CoreEntry {
    /// Core's name; absent and empty are the same.
    pub fn name(&self) -> Option<&str> {
        let inner = self.metadata.as_ref().and_then(|m| m.name.as_deref());
        present(self.name.as_deref()).or(present(inner))
    }

    /// Core's description; absent and empty are the same.
    pub fn description(&self) -> Option<&str> {
        let inner = self
            .metadata
            .as_ref()
            .and_then(|m| m.description.as_deref());
        present(self.description.as_deref()).or(present(inner))
    }

    /// Where the BMC answers; absent and empty are the same.
    pub fn bmc_ip(&self) -> Option<&str> {
        let texts = [&self.bmc_ip_address, &self.ip_address];
        let mut texts = texts.into_iter().flatten().map(|text| text.trim());
        texts.find(|text| !text.is_empty())
    }

    /// A label; absent, without a value and empty are the same.
    pub fn label(&self, key: &str) -> Option<&str> {
        let inner = self.metadata.as_ref().and_then(|m| m.labels.as_ref());
        present(self.labels.as_ref().and_then(|l| l.find(key)))
            .or_else(|| present(inner.and_then(|l| l.find(key))))
    }
}

impl CoreEntry {
    /// Labels that came more than once, each named once.
    pub fn duplicate_labels(&self) -> impl Iterator<Item = &'static str> {
        let inner = self.metadata.as_ref().and_then(|m| m.labels.as_ref());
        [self.labels.as_ref(), inner]
            .into_iter()
            .flatten()
            .flat_map(Labels::duplicates)
    }
}

/// Absent and empty are the same.
pub fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// An id: text, or `{"id": text}`, or `{"value": text}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdText(pub SmolStr);

impl<'de> Deserialize<'de> for IdText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl<'de> Visitor<'de> for IdVisitor {
            type Value = IdText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id as text or as {id}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<IdText, E> {
                Ok(IdText(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IdText, A::Error> {
                let mut id = None;
                while let Some(key) = map.next_key::<Name<'de>>()? {
                    if !matches!(key.0.as_ref(), "id" | "value") {
                        map.next_value::<de::IgnoredAny>()?;
                    } else if id.is_some() {
                        return Err(de::Error::duplicate_field("id"));
                    } else {
                        id = Some(map.next_value::<Option<SmolStr>>()?);
                    }
                }
                Ok(IdText(id.flatten().unwrap_or_default()))
            }
        }
        deserializer.deserialize_any(IdVisitor)
    }
}

/// The name of a member, left where it is as long as nothing in it is escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A number as text, whatever it was: what it means is decided later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberText(pub SmolStr);

impl<'de> Deserialize<'de> for NumberText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(scalar(deserializer)?.unwrap_or_default()))
    }
}

/// The labels that mean something here; others are forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    values: Vec<(&'static str, SmolStr)>,
    /// Whether any came more than once.
    twice: bool,
}

impl Labels {
    const KNOWN: [&'static str; 13] = [
        "manufacturer",
        "model",
        "slot_id",
        "tray_idx",
        "host_id",
        "chassis.manufacturer",
        "chassis.serial-number",
        "chassis.model",
        "location.region",
        "location.datacenter",
        "location.data_center",
        "location.room",
        "location.position",
    ];

    fn find(&self, key: &str) -> Option<&str> {
        // The last one of a key counts, as in a map that is filled in order.
        let found = self.values.iter().rev().find(|(k, _)| *k == key);
        found.map(|(_, value)| value.as_str())
    }

    fn duplicates(&self) -> impl Iterator<Item = &'static str> {
        let count = |key: &str| self.values.iter().filter(|(k, _)| *k == key).count();
        let known = self.twice.then_some(Self::KNOWN).into_iter().flatten();
        known.filter(move |key| count(key) > 1)
    }

    fn keep(&mut self, key: &str, value: Option<SmolStr>) {
        if let (Some(known), Some(value)) = (Self::KNOWN.iter().find(|k| **k == key), value) {
            self.twice |= self.values.iter().any(|(k, _)| k == known);
            self.values.push((known, value));
        }
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;

        impl<'de> Visitor<'de> for LabelsVisitor {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels as an object or a list of {key, value}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some(key) = map.next_key::<Name<'de>>()? {
                    if Labels::KNOWN.contains(&key.0.as_ref()) {
                        labels.keep(&key.0, map.next_value::<Scalar>()?.0);
                    } else {
                        map.next_value::<de::IgnoredAny>()?;
                    }
                }
                Ok(labels)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Labels, A::Error> {
                #[derive(Deserialize)]
                struct Label<'a> {
                    #[serde(borrow)]
                    key: Cow<'a, str>,
                    #[serde(default)]
                    value: Option<Scalar>,
                }
                let mut labels = Labels::default();
                while let Some(label) = seq.next_element::<Label<'de>>()? {
                    labels.keep(&label.key, label.value.and_then(|v| v.0));
                }
                Ok(labels)
            }
        }
        deserializer.deserialize_any(LabelsVisitor)
    }
}

/// Text, a number or a truth value as text; null as none.
struct Scalar(Option<SmolStr>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer).map(Self)
    }
}

fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SmolStr>, D::Error> {
    struct ScalarVisitor;

    impl Visitor<'_> for ScalarVisitor {
        type Value = Option<SmolStr>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or a number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.into()))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string().into()))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string().into()))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string().into()))
        }

        fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Self::Value, E> {
            Ok(Some(truth.to_string().into()))
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(ScalarVisitor)
}

/// The elements of a JSON array, not yet looked into.
pub fn elements(body: &[u8]) -> Result<Vec<&RawValue>, String> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "not a JSON array".into(),
        _ => format!("not JSON: {error}"),
    })
}

/// The values of a JSON object, not yet looked into.
pub fn members(body: &[u8]) -> Result<BTreeMap<Cow<'_, str>, &RawValue>, String> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "not a JSON object".into(),
        _ => format!("not JSON: {error}"),
    })
}

/// What stands where a list is expected: `{"error": ".."}` says that Core could not tell.
pub fn reported_error(value: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Failed {
        error: serde_json::Value,
    }
    if !is_object(value) {
        return None;
    }
    let failed: Failed = serde_json::from_str(value.get()).ok()?;
    Some(match failed.error {
        serde_json::Value::String(text) => text,
        _ => "it says no more".to_owned(),
    })
}

/// The `X-Pagination` header of a page.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pagination {
    /// Entries of all pages together.
    pub total: u64,
    /// Entries of a full page.
    #[serde(default)]
    pub page_size: Option<u64>,
}

/// Whether a value is an object: a list would be taken for one, field by field.
pub fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}
