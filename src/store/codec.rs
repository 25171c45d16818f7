//! Row bytes: the version of the row, then its fields in bincode 2.
//!
//! The only module that names `bincode`. The crate is complete and no longer developed, so it is
//! pinned, meets only bytes that this program wrote into its own files, and is bounded all the same.

use super::row::Row;
use serde::{Deserialize, Serialize};

/// No row makes the decoder take more memory than this, whatever it says.
const MAX_ROW: usize = 64 << 20;

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
    /// There is more than one value's bytes.
    #[error("a row has {0} bytes too many")]
    Trailing(usize),
}

/// The bytes of a row, in its newest version.
pub(crate) fn encode<'a, T: Row<'a>>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_version(T::VERSION, value)
}

/// The bytes of a value that is not shared between files of different programs: it has one version.
pub(super) fn encode_version(version: u8, value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![version];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())?;
    Ok(bytes)
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
pub(super) fn fields<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<MAX_ROW>();
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

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(version in 0u8..4, mut bytes: Vec<u8>) {
            bytes.insert(0, version);
            let _ = decode::<Report>(&bytes);
        }
    }
}
