//! Frames: a 4-byte big-endian length, then that many bytes.
//!
//! A decoder is a function of a buffer. The length meets the bound before any memory is taken.

/// Bytes of the length in front of every frame.
pub const HEADER: usize = 4;

/// What a buffer holds so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// At least this many more bytes are needed to say more.
    Incomplete(usize),
    /// One whole frame: its body is `buffer[HEADER..HEADER + body_len]`.
    Frame {
        /// Bytes of the body.
        body_len: usize,
    },
}

/// Why a frame is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced length is over the bound; nothing of the body was read.
    #[error("frame of {announced} bytes, at most {max} are allowed")]
    TooLarge {
        /// What the peer announced.
        announced: u32,
        /// The bound.
        max: u32,
    },
}

impl FrameError {
    /// Whether a TLS handshake begins where the length should be: the peer wants TLS and gets none.
    pub fn is_tls_handshake(&self) -> bool {
        self.begins_with([0x16, 0x03])
    }

    /// Whether an alert of TLS stands where the length should be: the peer expected TLS and got none.
    pub fn is_tls_alert(&self) -> bool {
        self.begins_with([0x15, 0x03])
    }

    /// Record type and major version of TLS. A frame with such a length would have some 350 MB.
    fn begins_with(&self, bytes: [u8; 2]) -> bool {
        let Self::TooLarge { announced, .. } = self;
        announced.to_be_bytes().starts_with(&bytes)
    }
}

/// Looks at what has arrived so far.
pub fn decode(buffer: &[u8], max: u32) -> Result<Decoded, FrameError> {
    let Some((header, body)) = buffer.split_first_chunk::<HEADER>() else {
        return Ok(Decoded::Incomplete(HEADER - buffer.len()));
    };
    let body_len = body_len(*header, max)?;
    Ok(match body_len.checked_sub(body.len()) {
        None | Some(0) => Decoded::Frame { body_len },
        Some(missing) => Decoded::Incomplete(missing),
    })
}

/// The length of the body that a header announces, if it is within the bound.
pub fn body_len(header: [u8; HEADER], max: u32) -> Result<usize, FrameError> {
    let announced = u32::from_be_bytes(header);
    if announced > max {
        return Err(FrameError::TooLarge { announced, max });
    }
    Ok(announced as usize)
}

/// One frame with `message` as its body, in one buffer so that it leaves in one write.
pub fn encode(message: &impl prost::Message) -> Vec<u8> {
    let len = message.encoded_len();
    let mut bytes = Vec::with_capacity(HEADER + len);
    bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    message.encode_raw(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_over_the_bound_is_refused_before_the_body_arrives() {
        assert_eq!(
            decode(&[0, 0, 4, 1], 1024),
            Err(FrameError::TooLarge {
                announced: 1025,
                max: 1024
            })
        );
    }

    #[test]
    fn a_record_of_tls_is_told_from_a_length() {
        let error = |head| body_len(head, 1 << 20).unwrap_err();
        let (hello, alert) = (error([0x16, 3, 1, 5]), error([0x15, 3, 3, 0]));
        assert!(hello.is_tls_handshake() && !hello.is_tls_alert());
        assert!(alert.is_tls_alert() && !alert.is_tls_handshake());
        let other = error([0x16, 4, 1, 5]);
        assert!(!other.is_tls_handshake() && !other.is_tls_alert());
    }

    #[test]
    fn an_empty_body_is_a_frame() {
        assert_eq!(decode(&[0; 4], 10), Ok(Decoded::Frame { body_len: 0 }));
    }

    proptest! {
        #[test]
        fn every_prefix_asks_for_what_is_missing(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..304) {
            let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend(&body);
            let seen = &bytes[..cut.min(bytes.len())];
            match decode(seen, 1024).unwrap() {
                Decoded::Frame { body_len } => prop_assert!(seen.len() == bytes.len() && body_len == body.len()),
                Decoded::Incomplete(missing) => prop_assert!(missing > 0 && seen.len() + missing <= bytes.len()),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, max: u32) {
            let _ = decode(&bytes, max);
        }
    }
}
