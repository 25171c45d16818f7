//! Row bytes: the version of the row, then its fields in bincode 2.
//!
//! The only module that names `bincode`. The crate is complete and no longer developed, so it is
//! pinned, meets only bytes that this program wrote into its own files, and is bounded all the same.

use serde::{Deserialize, Serialize};

/// No row is longer, in bytes: what is longer is refused when it is written.
pub(super) const MAX_ROW: usize = 64 << 20;

/// The decoder counts the width of a number, not the bytes that it takes in the row: at most so many times
/// the length of the row.
const MAX_DECODED: usize = MAX_ROW * 16;

/// Why bytes are not a row.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The version is missing or not known.
    #[error("a row of unknown version {0:?}")]
    UnknownVersion(Option<u8>),
    /// The rest does not decode.
    #[error("a row does not decode: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// The value cannot be written.
    #[error("a value cannot be encoded: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    /// The value is longer than what is read back.
    #[error("a value of {bytes} bytes is over the limit of {MAX_ROW}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// There is more than one value's bytes.
    #[error("a row has {0} bytes too many")]
    Trailing(usize),
}

/// A value of a table.
pub(crate) trait Row<'a>: Serialize + Deserialize<'a> {
    /// The version that is written.
    const VERSION: u8;

    /// Reads the fields of an older version.
    ///
    /// # Errors
    /// The version is not known, or the bytes are not of it.
    fn read_old(version: u8, _fields: &'a [u8]) -> Result<Self, CodecError> {
        Err(CodecError::UnknownVersion(Some(version)))
    }
}

/// Rows that are still of their first version.
macro_rules! first_version {
    ($($row:ty),* $(,)?) => { $(
        impl $crate::store::codec::Row<'_> for $row {
            const VERSION: u8 = 1;
        }
    )* };
}
pub(crate) use first_version;

/// Rows with a second version, and the type of their first one.
macro_rules! second_version {
    ($($row:ty: $old:ty),* $(,)?) => { $(
        impl<'a> $crate::store::codec::Row<'a> for $row {
            const VERSION: u8 = 2;

            fn read_old(version: u8, fields: &'a [u8]) -> Result<Self, $crate::store::codec::CodecError> {
                match version {
                    1 => $crate::store::codec::fields::<$old>(fields).map(Into::into),
                    other => Err($crate::store::codec::CodecError::UnknownVersion(Some(other))),
                }
            }
        }
    )* };
}
pub(crate) use second_version;

/// The bytes of a row, in its newest version.
pub(crate) fn encode<'a, T: Row<'a>>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_version(T::VERSION, value)
}

/// Writes the bytes of a row into `bytes`, in place of what is there: for many short rows.
pub(crate) fn encode_to<'a, T: Row<'a>>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    bytes.clear();
    bytes.push(T::VERSION);
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())?;
    match bytes.len() {
        len if len > MAX_ROW => Err(CodecError::TooLarge { bytes: len }),
        _ => Ok(()),
    }
}

/// The bytes of a value that is not shared between files of different programs: it has one version.
pub(crate) fn encode_version(version: u8, value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![version];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())?;
    match bytes.len() {
        len if len > MAX_ROW => Err(CodecError::TooLarge { bytes: len }),
        _ => Ok(bytes),
    }
}

/// The value of a row of any version. Its strings stay where they are, where its type borrows them.
pub(crate) fn decode<'a, T: Row<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((version, rest)) if *version == T::VERSION => fields(rest),
        Some((version, rest)) => T::read_old(*version, rest),
        None => Err(CodecError::UnknownVersion(None)),
    }
}

/// The fields of one version.
pub(crate) fn fields<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_ROW {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    let config = bincode::config::standard().with_limit::<MAX_DECODED>();
    let (value, read) = bincode::serde::borrow_decode_from_slice(bytes, config)?;
    match bytes.len() - read {
        0 => Ok(value),
        trailing => Err(CodecError::Trailing(trailing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use proptest::prelude::*;

    #[test]
    fn rows_of_an_unknown_version_are_refused() {
        assert!(matches!(
            decode::<u64>(&[9, 1]),
            Err(CodecError::UnknownVersion(Some(9)))
        ));
        assert!(matches!(
            decode::<u64>(&[]),
            Err(CodecError::UnknownVersion(None))
        ));
        assert!(matches!(
            decode::<u64>(&[1, 1, 1]),
            Err(CodecError::Trailing(1))
        ));
    }

    // The loss: a report that was accepted, and that nobody can read any more.
    #[test]
    fn what_can_be_written_can_be_read() {
        let package = |name: String| crate::report::Package {
            name,
            ..Default::default()
        };
        let report = |packages| Report {
            packages,
            ..Report::default()
        };
        // Many small ones, and one that just fits.
        let many = report(vec![package("a".into()); 262_144]);
        let longest = report(vec![package("a".repeat(MAX_ROW - 100))]);
        for report in [many, longest] {
            let bytes = encode(&report).unwrap();
            assert_eq!(decode::<Report>(&bytes).unwrap().packages, report.packages);
        }
        let refused = encode(&report(vec![package("a".repeat(MAX_ROW))]));
        assert!(matches!(refused, Err(CodecError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(version in 0u8..4, mut bytes: Vec<u8>) {
            bytes.insert(0, version);
            let _ = decode::<Report>(&bytes);
        }
    }
}
