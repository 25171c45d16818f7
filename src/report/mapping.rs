//! The hash that names a mapping from repositories to CPEs: XXH64 with seed 0 over its bytes.
//!
//! Agent and sensor compare it to know whether they have the same mapping. It finds changes, and resists nobody
//! who looks for a collision: whoever may push a mapping may push any.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::Hasher as _;
use std::str::FromStr;
use twox_hash::XxHash64;

/// Longest mapping that is pushed, in bytes. The real one has some 2 MB.
pub const LONGEST: usize = 5 << 20;

/// Whether this may be pushed: JSON in UTF-8, and in it an object `data`. What that holds is not looked at.
///
/// # Errors
/// Says where and why not.
pub fn check(json: &[u8]) -> Result<(), String> {
    let json = std::str::from_utf8(json).map_err(|_| "the mapping is not UTF-8".to_owned())?;
    let outline: Result<Outline, _> = serde_json::from_str(json);
    outline.map(drop).map_err(|error| error.to_string())
}

/// The outer object of a mapping.
struct Outline;

/// The object in `data`.
struct Data;

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Outline {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the key \"data\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut has_data = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "data" {
                map.next_value::<Data>()?;
                has_data = true;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let missing = || serde::de::Error::missing_field("data");
        has_data.then_some(self).ok_or_else(missing)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Data {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of repository ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self)
    }
}

/// The hash, shown as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MappingHash(u64);

impl MappingHash {
    /// Of a whole mapping.
    pub fn of(mapping: &[u8]) -> Self {
        Self(XxHash64::oneshot(0, mapping))
    }
}

impl fmt::Display for MappingHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for MappingHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let hash = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        hash.map(Self)
            .ok_or_else(|| format!("{text:?} is no hash of a mapping: 16 hex digits"))
    }
}

/// Hashes a mapping that comes in parts.
pub struct MappingHasher(XxHash64);

impl Default for MappingHasher {
    fn default() -> Self {
        Self(XxHash64::with_seed(0))
    }
}

impl MappingHasher {
    /// Takes the next part.
    pub fn write(&mut self, part: &[u8]) {
        self.0.write(part);
    }

    /// Of all parts so far.
    pub fn finish(&self) -> MappingHash {
        MappingHash(self.0.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first three are the values that the reference implementation gives.
    #[test]
    fn the_hash_is_xxh64_in_16_digits() {
        for (bytes, hash) in [
            (&b""[..], "ef46db3751d8e999"),
            (b"a", "d24ec4f1a98c6e5b"),
            (b"abc", "44bc2cf5ad770999"),
        ] {
            assert_eq!(MappingHash::of(bytes).to_string(), hash);
            assert_eq!(hash.parse(), Ok(MappingHash::of(bytes)));
        }
        for text in [
            "",
            "+f46db3751d8e999",
            "ef46db3751d8e99",
            "ef46db3751d8e9999",
        ] {
            assert!(text.parse::<MappingHash>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_mapping_is_told_from_one() {
        for good in [
            r#"{"data": {}}"#,
            r#"{"x": [1], "data": {"a": {"cpes": ["cpe:/o:x"]}, "b": 5}, "y": null}"#,
            r#"{"data": {}, "data": {"a": {}}}"#,
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            &b""[..],
            b"{}",
            b"[]",
            b"{\"data\": []}",
            b"{\"data\": {}} more",
            b"{\"data\": {\"a\xff\": {}}}",
            b"{\"data\": {\"a\"",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mapping_in_parts_has_the_hash_of_the_whole() {
        let whole: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
        let mut hasher = MappingHasher::default();
        for part in whole.chunks(33) {
            hasher.write(part);
        }
        assert_eq!(hasher.finish(), MappingHash::of(&whole));
    }
}
