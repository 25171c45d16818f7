//! Frames of the websocket protocol (RFC 6455), as a client reads and writes them.
//!
//! ```text
//! fin rsv opcode | mask len | 16 or 64 bits more of len | mask key, from the client only | payload
//! ```
//!
//! Payload of data is given as it arrives: no length that is announced makes anybody take memory. Messages have
//! no meaning here, so a message in several fragments is the same as several messages.

/// Longest payload of a control frame.
const LONGEST_CONTROL: u64 = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a peer may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// Bits that mean nothing here, or an opcode that is not defined.
    #[error("a websocket frame of an unknown kind")]
    Unknown,
    /// A server sends its frames unmasked.
    #[error("a masked websocket frame from a server")]
    Masked,
    /// Text, where only bytes are expected.
    #[error("a text message on a stream of bytes")]
    Text,
    /// A control frame in fragments, or over 125 bytes.
    #[error("a websocket control frame that is too long or in fragments")]
    Control,
    /// A fragment that continues nothing, or a message within another.
    #[error("websocket fragments out of order")]
    Order,
    /// A length over 2^63.
    #[error("a websocket frame over all bounds")]
    TooLong,
}

/// What a frame asks for, beside its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Nothing: its data, if any, was appended.
    Data,
    /// A pong with this payload.
    Ping(Vec<u8>),
    /// A close frame in return; the stream ends here.
    Close,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    is_last: bool,
    left: u64,
}

/// Reads frames however they are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    header: Vec<u8>,
    frame: Option<Frame>,
    control: Vec<u8>,
    /// A message in fragments is under way.
    is_fragmented: bool,
}

impl Decoder {
    /// Takes bytes up to the end of the first control frame, or all of them. Appends data to `out`; gives how many
    /// bytes it took.
    ///
    /// # Errors
    /// The bytes are no frames of a server.
    pub fn decode(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Piece), FrameFault> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let Some(frame) = &mut self.frame else {
                let Some(byte) = rest.first() else {
                    return Ok((at, Piece::Data));
                };
                self.header.push(*byte);
                at += 1;
                if let Some(frame) = read_header(&self.header)? {
                    self.header.clear();
                    self.begin(frame)?;
                }
                continue;
            };
            let len = usize::try_from(frame.left).unwrap_or(usize::MAX);
            let part = rest.get(..len.min(rest.len())).unwrap_or_default();
            match frame.opcode {
                CLOSE.. => self.control.extend_from_slice(part),
                _ => out.extend_from_slice(part),
            }
            at += part.len();
            frame.left -= part.len() as u64;
            if frame.left > 0 {
                return Ok((at, Piece::Data));
            }
            let opcode = frame.opcode;
            self.frame = None;
            let payload = std::mem::take(&mut self.control);
            match opcode {
                CLOSE => return Ok((at, Piece::Close)),
                PING => return Ok((at, Piece::Ping(payload))),
                _ => {}
            }
        }
    }

    fn begin(&mut self, frame: Frame) -> Result<(), FrameFault> {
        match frame.opcode {
            TEXT => return Err(FrameFault::Text),
            BINARY if self.is_fragmented => return Err(FrameFault::Order),
            CONTINUATION if !self.is_fragmented => return Err(FrameFault::Order),
            CONTINUATION | BINARY => self.is_fragmented = !frame.is_last,
            CLOSE | PING | PONG if !frame.is_last || frame.left > LONGEST_CONTROL => {
                return Err(FrameFault::Control);
            }
            CLOSE | PING | PONG => {}
            _ => return Err(FrameFault::Unknown),
        }
        self.frame = Some(frame);
        Ok(())
    }
}

/// Reads a header; `None`: it is not whole.
fn read_header(bytes: &[u8]) -> Result<Option<Frame>, FrameFault> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameFault::Unknown);
    }
    if second & 0x80 != 0 {
        return Err(FrameFault::Masked);
    }
    let left = match (second & 0x7f, rest) {
        (126, [a, b]) => u64::from(u16::from_be_bytes([*a, *b])),
        (127, [a, b, c, d, e, f, g, h]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
        (126 | 127, _) => return Ok(None),
        (len, _) => u64::from(len),
    };
    if left > i64::MAX as u64 {
        return Err(FrameFault::TooLong);
    }
    Ok(Some(Frame {
        opcode: first & 0x0f,
        is_last: first & 0x80 != 0,
        left,
    }))
}

/// Appends a frame of a client with a whole binary message.
pub(super) fn write_binary(payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    write(BINARY, payload, mask, out);
}

/// Appends a pong.
pub(super) fn write_pong(payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    write(PONG, payload, mask, out);
}

/// Appends a close frame: 1000, all is well.
pub(super) fn write_close(mask: [u8; 4], out: &mut Vec<u8>) {
    write(CLOSE, &1000u16.to_be_bytes(), mask, out);
}

fn write(opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    let len = payload.len();
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..=125), _) => out.push(0x80 | len),
        (_, Ok(len)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Data and the other pieces of these bytes, taken in parts of this length.
    fn decode(bytes: &[u8], part: usize) -> Result<(Vec<u8>, Vec<Piece>), FrameFault> {
        let (mut decoder, mut out, mut pieces) = (Decoder::default(), Vec::new(), Vec::new());
        for mut bytes in bytes.chunks(part) {
            while !bytes.is_empty() {
                let (taken, piece) = decoder.decode(bytes, &mut out)?;
                bytes = &bytes[taken..];
                if piece != Piece::Data {
                    pieces.push(piece);
                }
            }
        }
        Ok((out, pieces))
    }

    /// What virt-handler sends of a long read: a frame that is not the last, an empty one that is.
    #[test]
    fn fragments_with_control_frames_between_them_are_one_stream() {
        let mut bytes = vec![0x02, 126, 0x28, 0x00];
        bytes.extend([7; 10_240]);
        bytes.extend([0x89, 2, b'h', b'i']);
        bytes.extend([0x00, 2, 8, 9]);
        bytes.extend([0x80, 0, 0x8a, 0]);
        bytes.extend([0x82, 1, 1, 0x88, 2, 3, 0xe8]);
        for part in [1, 5, bytes.len()] {
            let (data, pieces) = decode(&bytes, part).unwrap();
            assert_eq!(data.len(), 10_243);
            assert_eq!(&data[10_240..], [8, 9, 1]);
            assert_eq!(pieces, [Piece::Ping(b"hi".to_vec()), Piece::Close]);
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_a_fault() {
        for (bytes, fault) in [
            (&[0x82, 0x81, 0, 0, 0, 0, 1][..], FrameFault::Masked),
            (&[0xc2, 0], FrameFault::Unknown),
            (&[0x83, 0], FrameFault::Unknown),
            (&[0x8b, 0], FrameFault::Unknown),
            (&[0x81, 1, b'a'], FrameFault::Text),
            (&[0x09, 0], FrameFault::Control),
            (&[0x89, 126, 0, 126], FrameFault::Control),
            (&[0x80, 0], FrameFault::Order),
            (&[0x02, 0, 0x82, 0], FrameFault::Order),
            (&[0x82, 127, 255, 0, 0, 0, 0, 0, 0, 0], FrameFault::TooLong),
        ] {
            assert_eq!(decode(bytes, 1), Err(fault), "{bytes:x?}");
        }
    }

    /// Loss prevented: a length that is announced, and memory that is taken for it.
    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut out = Vec::new();
        let header = [0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1];
        Decoder::default().decode(&header, &mut out).unwrap();
        assert!(out.capacity() < 100);
    }

    proptest! {
        /// The mask is taken off as a server does it; the rest of the frame is read back.
        #[test]
        fn what_is_written_is_what_a_server_reads(
            payload in proptest::collection::vec(any::<u8>(), 0..70_000), mask: [u8; 4], part in 1usize..5000,
        ) {
            let mut frame = Vec::new();
            write_binary(&payload, mask, &mut frame);
            let at = frame.len() - payload.len();
            prop_assert_eq!(&frame[at - 4..at], &mask);
            let mut served = frame[..at - 4].to_vec();
            served[1] &= 0x7f;
            served.extend(frame[at..].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
            prop_assert_eq!(decode(&served, part).unwrap().0, payload);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let whole = decode(&bytes, bytes.len().max(1));
            prop_assert_eq!(whole, decode(&bytes, 1));
        }
    }
}
