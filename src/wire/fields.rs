//! Protobuf's encoding, read in place: one field after the other, and nothing copied.

use DecodeError::Malformed;

/// Why the bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no message.
    #[error("not a message of this protocol")]
    Malformed,
    /// They hold more of something than an agent has to say: each may be tiny, and would still take
    /// many times its length in memory.
    #[error("more packages, repositories or facts than any machine has")]
    TooMuch,
}

/// The fields of a message, one after the other; ends after the first that is none.
///
/// <https://protobuf.dev/programming-guides/encoding/>. Groups, which no peer of this protocol
/// sends, are not read.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// A field's value.
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a fixed width, which no field here has.
    Fixed,
}

impl<'a> Fields<'a> {
    /// Most numbers are one byte: keys of the first fifteen fields, lengths of short texts.
    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.0 {
            [byte @ 0..0x80, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for n in 0..10 {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            value |= bits << (7 * n);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                return if n < 9 || bits < 2 {
                    Ok(value)
                } else {
                    Err(Malformed)
                };
            }
        }
        Err(Malformed)
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn field(&mut self) -> Result<(u64, Value<'a>), DecodeError> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        // Numbers have 29 bits, and begin at 1.
        if key > u64::from(u32::MAX) || key < 8 {
            return Err(Malformed);
        }
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Value<'a> {
    /// Of a string, bytes or a message.
    pub(super) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed => Err(Malformed),
        }
    }

    /// Of a string.
    pub(super) fn text(self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Of a bool.
    pub(super) fn flag(self) -> Result<bool, DecodeError> {
        match self {
            Self::Varint(value) => Ok(value != 0),
            Self::Bytes(_) | Self::Fixed => Err(Malformed),
        }
    }
}

/// A `uint32`: protobuf takes the low half of a longer number.
#[allow(clippy::cast_possible_truncation, reason = "as protobuf says")]
pub(super) fn low_half(number: u64) -> u32 {
    number as u32
}
