//! A sensor's request, written and read in both generations of the protocol.
//!
//! Field 1 of `GetReport` is a generation (varint) or a token (string). Fields of an unexpected wire
//! type are stepped over, so that a peer of a later generation still gets an answer.

use super::fields::DecodeError::{self, Malformed};
use super::fields::{Fields, Value, low_half};
use super::frame;
use super::message as wire;
use super::meta::REPORT_V1;
use prost::Message as _;
use std::time::Duration;

/// What a peer asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// Whether the peer reads both generations, and sends back a digest as this agent issued it.
    pub is_report_v1: bool,
    /// What it asks for; `None` for a method that is not known here.
    pub method: Option<Method<'a>>,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// The report, unless it is the known one.
    GetReport(Knowledge<'a>),
    /// The same, as soon as it is another one, or this many milliseconds are over.
    WaitReport(Knowledge<'a>, u32),
    /// Here is a mapping from repositories to CPEs.
    SyncMapping(&'a [u8]),
}

/// Which report a peer says that it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knowledge<'a> {
    /// 0: none.
    pub generation: u32,
    /// 0: not said.
    pub epoch: u32,
    /// Empty: not said.
    pub digest: &'a [u8],
    /// Empty: none, or not said.
    pub token: &'a str,
}

/// The frame that asks for a report other than the known one: at once, or when there is one, at the
/// latest after `wait`.
///
/// A token goes into the layout of the second generation, which has no request to wait.
pub fn encode(known: Knowledge<'_>, wait: Option<Duration>) -> Vec<u8> {
    let meta = Some(own_meta());
    let (last_known_generation, known_epoch) = (known.generation, known.epoch);
    let known_digest = known.digest.to_vec();
    let method = match wait {
        None if !known.token.is_empty() => {
            return frame::encode(&wire::TokenRequest {
                meta,
                get_report: Some(wire::GetReportByToken {
                    last_known_token: known.token.to_owned(),
                }),
            });
        }
        None => wire::request::Method::GetReport(wire::GetReport {
            last_known_generation,
            known_epoch,
            known_digest,
        }),
        Some(wait) => wire::request::Method::WaitReport(wire::WaitReport {
            last_known_generation,
            known_epoch,
            known_digest,
            timeout_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        }),
    };
    let method = Some(method);
    frame::encode(&wire::VmServiceRequest { meta, method })
}

/// The frame that pushes a mapping.
pub fn encode_push(mapping: &[u8]) -> Vec<u8> {
    [&push_head(mapping.len()), mapping].concat()
}

/// All of that frame in front of a mapping of so many bytes: one mapping goes to many agents, and is not copied
/// for each.
pub fn push_head(mapping: usize) -> Vec<u8> {
    let meta = wire::VmServiceRequest {
        meta: Some(own_meta()),
        method: None,
    };
    let mut body = meta.encode_to_vec();
    let field = |number: u8, len: usize, bytes: &mut Vec<u8>| {
        bytes.push(number << 3 | 2);
        prost::encoding::encode_varint(len as u64, bytes);
    };
    let mut inner = Vec::new();
    field(1, mapping, &mut inner);
    field(3, inner.len() + mapping, &mut body);
    body.extend(inner);
    let len = u32::try_from(body.len() + mapping).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], &body].concat()
}

fn own_meta() -> wire::RequestMeta {
    wire::RequestMeta {
        request_id: uuid::Uuid::new_v4().to_string(),
        capabilities: vec![REPORT_V1.into()],
        ..wire::RequestMeta::default()
    }
}

/// Whether a request that begins with these bytes pushes a mapping, which may be longer than any other. `None`:
/// more bytes are needed to say.
pub fn begins_push(beginning: &[u8]) -> Option<bool> {
    let mut fields = Fields(beginning);
    while !fields.0.is_empty() {
        // The key of field 3 with a length.
        match fields.0 {
            [0x1a, ..] => return Some(true),
            // Of the other methods: 2, and 1000.
            [0x12, ..] | [0xc2, 0x3e, ..] => return Some(false),
            [0xc2] => return None,
            _ => {}
        }
        // What does not end here may end in what follows.
        fields.next()?.ok()?;
    }
    None
}

impl<'a> Request<'a> {
    /// Reads a whole message.
    ///
    /// # Errors
    /// When the bytes are no message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut request = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(meta)) => request.merge_meta(meta)?,
                (2, Value::Bytes(body)) => {
                    let mut known = match request.method.take() {
                        Some(Method::GetReport(known)) => known,
                        _ => Knowledge::default(),
                    };
                    known.merge_get(body)?;
                    request.method = Some(Method::GetReport(known));
                }
                (3, Value::Bytes(body)) => {
                    let mut mapping = match request.method.take() {
                        Some(Method::SyncMapping(mapping)) => mapping,
                        _ => &[],
                    };
                    for field in Fields(body) {
                        if let (1, Value::Bytes(bytes)) = field? {
                            mapping = bytes;
                        }
                    }
                    request.method = Some(Method::SyncMapping(mapping));
                }
                (1000, Value::Bytes(body)) => {
                    let (mut known, mut timeout) = match request.method.take() {
                        Some(Method::WaitReport(known, timeout)) => (known, timeout),
                        _ => Default::default(),
                    };
                    known.merge_wait(body, &mut timeout)?;
                    request.method = Some(Method::WaitReport(known, timeout));
                }
                _ => {}
            }
        }
        Ok(request)
    }

    fn merge_meta(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        for field in Fields(bytes) {
            if let (2, Value::Bytes(capability)) = field? {
                self.is_report_v1 |= capability == REPORT_V1.as_bytes();
            }
        }
        Ok(())
    }
}

impl<'a> Knowledge<'a> {
    fn merge_get(&mut self, bytes: &'a [u8]) -> Result<(), DecodeError> {
        self.merge(bytes, |known, field| {
            if let (1000, Value::Bytes(digest)) = field {
                known.digest = digest;
            }
        })
    }

    fn merge_wait(&mut self, bytes: &'a [u8], timeout: &mut u32) -> Result<(), DecodeError> {
        self.merge(bytes, |known, field| match field {
            (3, Value::Bytes(digest)) => known.digest = digest,
            (4, Value::Varint(number)) => *timeout = low_half(number),
            _ => {}
        })
    }

    /// The fields that both requests have, and `other` for the rest.
    fn merge(
        &mut self,
        bytes: &'a [u8],
        mut other: impl FnMut(&mut Self, (u64, Value<'a>)),
    ) -> Result<(), DecodeError> {
        for field in Fields(bytes) {
            match field? {
                (1, Value::Varint(number)) => self.generation = low_half(number),
                (1, Value::Bytes(token)) => {
                    self.token = std::str::from_utf8(token).map_err(|_| Malformed)?;
                }
                (2, Value::Varint(number)) => self.epoch = low_half(number),
                field => other(self, field),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{
        GetReport, GetReportByToken, RequestMeta, TokenRequest, VmServiceRequest, WaitReport,
        request,
    };
    use proptest::prelude::*;
    use prost::Message;

    #[test]
    fn what_is_written_is_read() {
        let pair = Knowledge {
            generation: 12,
            epoch: 77,
            digest: b"d",
            token: "",
        };
        let token = Knowledge {
            token: "t",
            ..Knowledge::default()
        };
        let wait = Duration::from_secs(45);
        for (known, wait, method) in [
            (pair, None, Method::GetReport(pair)),
            (token, None, Method::GetReport(token)),
            (pair, Some(wait), Method::WaitReport(pair, 45_000)),
        ] {
            let bytes = encode(known, wait);
            let read = Request::decode(&bytes[frame::HEADER..]).unwrap();
            assert!(read.is_report_v1);
            assert_eq!(read.method, Some(method));
        }
    }

    #[test]
    fn a_push_is_known_by_its_beginning() {
        let bytes = encode_push(&[b'm'; 300]);
        let body = &bytes[frame::HEADER..];
        let read = Request::decode(body).unwrap();
        assert_eq!(read.method, Some(Method::SyncMapping(&[b'm'; 300])));
        let said: Vec<_> = (0..body.len())
            .map(|len| begins_push(&body[..len]))
            .collect();
        let known_at = said.iter().position(Option::is_some).unwrap();
        assert!(known_at < 60, "{known_at}");
        assert!(said[known_at..].iter().all(|said| *said == Some(true)));
        // As prost writes it.
        let read = VmServiceRequest::decode(body).unwrap();
        let again = VmServiceRequest {
            method: Some(request::Method::SyncRepoCpeMapping(
                wire::SyncRepoCpeMapping {
                    mapping: vec![b'm'; 300],
                },
            )),
            ..read.clone()
        };
        assert_eq!((read, frame::encode(&again)), (again, bytes.clone()));

        for wait in [None, Some(Duration::from_secs(1))] {
            let bytes = encode(Knowledge::default(), wait);
            let body = &bytes[frame::HEADER..];
            assert_eq!(begins_push(body), Some(false));
            assert!((0..body.len()).all(|len| begins_push(&body[..len]) != Some(true)));
        }
    }

    #[test]
    fn a_known_report_is_named_by_generation_or_by_token() {
        let meta = RequestMeta {
            capabilities: vec!["x".into(), REPORT_V1.into()],
            ..RequestMeta::default()
        };
        let by_token = TokenRequest {
            meta: Some(meta),
            get_report: Some(GetReportByToken {
                last_known_token: "77:12:ab".into(),
            }),
        }
        .encode_to_vec();
        let read = Request::decode(&by_token).unwrap();
        assert!(read.is_report_v1);
        let token = "77:12:ab";
        let known = Knowledge {
            token,
            ..Knowledge::default()
        };
        assert_eq!(read.method, Some(Method::GetReport(known)));
    }

    #[test]
    fn a_field_of_another_type_is_stepped_over() {
        // get_report { 2: "abc", 1000: 5, 7: fixed32 }, meta { 2: varint }
        let bytes = [
            0x0a, 2, 0x10, 1, 0x12, 13, 0x12, 3, b'a', b'b', b'c', 0xc0, 0x3e, 5, 0x3d, 0, 0, 0, 0,
        ];
        let read = Request::decode(&bytes).unwrap();
        assert_eq!(read.method, Some(Method::GetReport(Knowledge::default())));
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_prost_reads_it(
            generation: u32, epoch: u32, digest in proptest::collection::vec(any::<u8>(), 0..4), timeout_ms: u32, waits: bool,
        ) {
            let method = match waits {
                false => request::Method::GetReport(GetReport {
                    last_known_generation: generation,
                    known_epoch: epoch,
                    known_digest: digest.clone(),
                }),
                true => request::Method::WaitReport(WaitReport {
                    last_known_generation: generation,
                    known_epoch: epoch,
                    known_digest: digest.clone(),
                    timeout_ms,
                }),
            };
            let bytes = VmServiceRequest { meta: None, method: Some(method) }.encode_to_vec();
            let known = Knowledge { generation, epoch, digest: &digest, token: "" };
            let method = match waits {
                false => Method::GetReport(known),
                true => Method::WaitReport(known, timeout_ms),
            };
            prop_assert_eq!(Request::decode(&bytes).unwrap().method, Some(method));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Request::decode(&bytes);
            let _ = begins_push(&bytes);
        }
    }
}
