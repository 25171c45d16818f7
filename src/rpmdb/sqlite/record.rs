//! Records: the values of one row, and the variable-length numbers they are made of.
//!
//! <https://sqlite.org/fileformat2.html#record_format>

use super::pager::Encoding;

/// One column of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL, or a column that the row is too old to have.
    Null,
    /// An integer of any width.
    Integer(i64),
    /// A floating point number.
    Real(f64),
    /// Text, converted to UTF-8 with replacement.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// The integer, when it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The text, when it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A variable-length number and the count of bytes it takes, 1 to 9.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    // Nearly all of them are below 128.
    if let [byte @ ..0x80, ..] = bytes {
        return Some((u64::from(*byte), 1));
    }
    let mut value: u64 = 0;
    for (i, byte) in bytes.iter().take(9).enumerate() {
        if i == 8 {
            return Some(((value << 8) | u64::from(*byte), 9));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Where a column lies in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) serial: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Column {
    pub(super) fn is_blob(self) -> bool {
        self.serial >= 12 && self.serial.is_multiple_of(2)
    }
}

/// The columns that a record's header lists; `None` when it is damaged.
///
/// `header` is the whole header, its own length in front.
pub(super) fn columns(header: &[u8]) -> impl Iterator<Item = Option<Column>> + '_ {
    let (length, mut at) = varint(header).unwrap_or((0, header.len()));
    let mut offset = length;
    std::iter::from_fn(move || {
        let rest = header.get(at..).filter(|rest| !rest.is_empty())?;
        let Some((serial, n)) = varint(rest) else {
            at = header.len();
            return Some(None);
        };
        at += n;
        let length = match serial {
            0 | 8 | 9 => 0,
            1..=4 => serial,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => {
                at = header.len();
                return Some(None);
            }
            _ => (serial - 12) / 2,
        };
        let column = Column {
            serial,
            offset,
            length,
        };
        offset = offset.saturating_add(length);
        Some(Some(column))
    })
}

/// The value of a column from its bytes.
pub(super) fn value(serial: u64, bytes: &[u8], encoding: Encoding) -> Value {
    match serial {
        0 => Value::Null,
        1..=6 => {
            let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
            let start: i64 = if negative { -1 } else { 0 };
            Value::Integer(bytes.iter().fold(start, |n, b| (n << 8) | i64::from(*b)))
        }
        7 => Value::Real(bytes.try_into().map_or(0.0, f64::from_be_bytes)),
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        _ if serial.is_multiple_of(2) => Value::Blob(bytes.to_vec()),
        _ => Value::Text(text(bytes, encoding)),
    }
}

fn text(bytes: &[u8], encoding: Encoding) -> String {
    let units = |unit: fn([u8; 2]) -> u16| -> String {
        let units = bytes
            .chunks_exact(2)
            .filter_map(|pair| pair.try_into().ok().map(unit));
        char::decode_utf16(units)
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    };
    match encoding {
        Encoding::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
        Encoding::Utf16Le => units(u16::from_le_bytes),
        Encoding::Utf16Be => units(u16::from_be_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_takes_one_to_nine_bytes() {
        assert_eq!(varint(&[0x7f]), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0x00]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0x80; 8]), None);
        assert_eq!(varint(&[]), None);
    }

    #[test]
    fn integers_of_every_width_keep_their_sign() {
        assert_eq!(value(1, &[0xff], Encoding::Utf8), Value::Integer(-1));
        assert_eq!(value(2, &[0x01, 0x00], Encoding::Utf8), Value::Integer(256));
        assert_eq!(
            value(6, &i64::MIN.to_be_bytes(), Encoding::Utf8),
            Value::Integer(i64::MIN)
        );
        assert_eq!(value(9, &[], Encoding::Utf8), Value::Integer(1));
    }
}
