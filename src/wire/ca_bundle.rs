//! KubeVirt's service `System`, with which a guest asks its host for the authorities of KubeVirt's clients.
//!
//! ```text
//! call     /kubevirt.vsock.system.v1.System/CABundle
//! message  compressed u8 | length u32 BE | protobuf         of gRPC, in both directions
//! request  {}
//! answer   { bytes raw = 1 }                                certificates in PEM
//! ```

use super::fields::DecodeError::{self, Malformed};
use super::fields::{Fields, Value};

/// Path of the call.
pub const PATH: &str = "/kubevirt.vsock.system.v1.System/CABundle";

/// The body of a request: one empty message.
pub const REQUEST: &[u8] = &[0; 5];

/// Longest body of an answer, in bytes. A bundle during a rotation has some 1,200.
pub const MAX_ANSWER: usize = 1 << 20;

/// The certificates in the body of an answer.
///
/// # Errors
/// The body is not one uncompressed message of this type.
pub fn decode(body: &[u8]) -> Result<&[u8], DecodeError> {
    let Some((&[0, a, b, c, d], message)) = body.split_first_chunk::<5>() else {
        return Err(Malformed);
    };
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return Err(Malformed);
    }
    let mut raw = &[][..];
    for field in Fields(message) {
        if let (1, Value::Bytes(bytes)) = field? {
            raw = bytes;
        }
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are those that KubeVirt's own service sends, cut short.
    #[test]
    fn the_certificates_of_an_answer_are_read() {
        let body = b"\x00\x00\x00\x00\x0c\x0a\x0a-----BEGIN";
        assert_eq!(decode(body).unwrap(), b"-----BEGIN");
        assert_eq!(decode(b"\x00\x00\x00\x00\x00").unwrap(), b"");
    }

    #[test]
    fn what_is_compressed_cut_or_no_message_is_refused() {
        for body in [
            &b""[..],
            b"\x00\x00\x00\x00",
            b"\x01\x00\x00\x00\x03\x0a\x01-",
            b"\x00\x00\x00\x00\x04\x0a\x01-",
            b"\x00\x00\x00\x00\x03\x0a\x01-\x00",
            b"\x00\x00\x00\x00\x02\x0a\x05",
        ] {
            assert_eq!(decode(body), Err(Malformed), "{body:?}");
        }
    }
}
