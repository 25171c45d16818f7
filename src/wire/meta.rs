//! The meta of a response in both generations of the protocol at once.
//!
//! ```text
//! number   first generation        second generation
//! 3        varint generation       string token
//! 6        varint epoch            string mapping_hash
//! 7        string mapping_hash     varint update_path
//! 8        varint update_path
//! ```
//!
//! A decoder steps over a field whose wire type it does not expect, so a message may carry both types
//! under one number: the real clients of both generations read it (`docs/protocol.md`). Only a peer with
//! the capability [`REPORT_V1`] is sent both; version 0.1 refuses the second.

use super::fields::DecodeError::{self, Malformed};
use super::fields::{Fields, Value, low_half};
use super::message as wire;
use crate::report::Facts;
use prost::Message;

/// The capability of a peer that reads both generations, and sends a digest back as it came.
pub const REPORT_V1: &str = "report_v1";

/// Bytes of field 1 of a response, the meta: in the first generation's layout, and if `token` is given
/// in the second one's as well.
pub fn encode(meta: &wire::ResponseMeta, token: Option<&str>) -> Vec<u8> {
    let mut bytes = meta.encode_to_vec();
    if let Some(token) = token {
        put_text(&mut bytes, 3, token);
        put_text(
            &mut bytes,
            6,
            meta.mapping_hash.as_deref().unwrap_or_default(),
        );
        put_key(&mut bytes, 7, 0);
        put_varint(&mut bytes, meta.update_path.into());
    }
    let mut field = Vec::with_capacity(bytes.len() + 4);
    put_key(&mut field, 1, 2);
    put_varint(&mut field, bytes.len() as u64);
    field.extend(bytes);
    field
}

fn put_key(bytes: &mut Vec<u8>, number: u8, wire_type: u8) {
    bytes.push(number << 3 | wire_type);
}

fn put_varint(bytes: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, bytes);
}

fn put_text(bytes: &mut Vec<u8>, number: u8, text: &str) {
    put_key(bytes, number, 2);
    put_varint(bytes, text.len() as u64);
    bytes.extend(text.as_bytes());
}

/// What an agent says about its report, of either generation. What it does not say is empty or 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// Version of the agent, for people.
    pub agent_version: String,
    /// When the report was made.
    pub generated_at: Option<wire::Timestamp>,
    /// First generation: counter of the reports.
    pub generation: u32,
    /// First generation: what the counter counts in.
    pub epoch: u32,
    /// Second generation: names the report.
    pub token: String,
    /// What may be asked for.
    pub supported_methods: Vec<String>,
    /// Facts of any kind.
    pub facts: Facts,
    /// Of the mapping from repositories to CPEs that the report was made with.
    pub mapping_hash: String,
    /// Who brings that mapping: 0 not said, 1 the sensor, 2 a URL or file.
    pub update_path: u32,
    /// What the agent can do besides.
    pub capabilities: Vec<String>,
}

impl Meta {
    /// Merges the fields of one message into this one, as protobuf says.
    ///
    /// # Errors
    /// When the bytes are no message, or a fact is none. A known field of an unknown wire type is none.
    pub(super) fn merge(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(text)) => self.agent_version = owned(text)?,
                (2, Value::Bytes(time)) => {
                    let known = self.generated_at.get_or_insert_default();
                    known.merge(time).map_err(|_| Malformed)?;
                }
                (3, Value::Varint(number)) => self.generation = low_half(number),
                (3, Value::Bytes(text)) => self.token = owned(text)?,
                (4, Value::Bytes(text)) => self.supported_methods.push(owned(text)?),
                (5, entry) => {
                    let (name, value) = fact(entry.bytes()?)?;
                    self.facts.insert(name, value);
                }
                (6, Value::Varint(number)) => self.epoch = low_half(number),
                (6 | 7, Value::Bytes(text)) => self.mapping_hash = owned(text)?,
                (7 | 8, Value::Varint(number)) => self.update_path = low_half(number),
                (1000, Value::Bytes(text)) => self.capabilities.push(owned(text)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the agent names its report by a token alone.
    pub fn has_only_token(&self) -> bool {
        self.generation == 0 && !self.token.is_empty()
    }
}

fn owned(bytes: &[u8]) -> Result<String, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    Ok(text.to_owned())
}

fn fact(entry: &[u8]) -> Result<(String, String), DecodeError> {
    let (mut name, mut value) = (String::new(), String::new());
    for field in Fields(entry) {
        match field? {
            (1, Value::Bytes(text)) => name = owned(text)?,
            (2, Value::Bytes(text)) => value = owned(text)?,
            _ => {}
        }
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(field: &[u8]) -> Meta {
        let (number, value) = Fields(field).next().unwrap().unwrap();
        assert_eq!(number, 1);
        let mut meta = Meta::default();
        meta.merge(value.bytes().unwrap()).unwrap();
        meta
    }

    #[test]
    fn both_generations_are_read_from_one_message() {
        let sent = wire::ResponseMeta {
            report_generation: 12,
            epoch: 77,
            mapping_hash: Some("ab".into()),
            update_path: 2,
            capabilities: vec![REPORT_V1.into()],
            ..wire::ResponseMeta::default()
        };
        let meta = read(&encode(&sent, Some("77:12:0123456789abcdef")));
        assert_eq!((meta.generation, meta.epoch), (12, 77));
        assert_eq!(meta.token, "77:12:0123456789abcdef");
        assert_eq!((meta.mapping_hash.as_str(), meta.update_path), ("ab", 2));
        assert_eq!(meta.capabilities, [REPORT_V1]);
        assert!(!meta.has_only_token());
        let first = read(&encode(&sent, None));
        assert_eq!(first.token, "");
        assert_eq!(
            (first.generation, first.epoch, first.update_path),
            (12, 77, 2)
        );
    }

    /// Readers disagree about it: some step over it, some take the number for a length.
    #[test]
    fn a_fact_that_is_a_number_is_refused() {
        let mut bytes = Vec::new();
        put_key(&mut bytes, 5, 0);
        put_varint(&mut bytes, 2);
        bytes.extend([0x10, 1]);
        assert!(Meta::default().merge(&bytes).is_err());
    }

    #[test]
    fn the_second_generation_alone_has_only_a_token() {
        let mut bytes = Vec::new();
        put_text(&mut bytes, 3, "abc");
        put_text(&mut bytes, 6, "hash");
        put_key(&mut bytes, 7, 0);
        put_varint(&mut bytes, 1);
        let mut meta = Meta::default();
        meta.merge(&bytes).unwrap();
        assert!(meta.has_only_token());
        assert_eq!((meta.mapping_hash.as_str(), meta.update_path), ("hash", 1));
    }
}
