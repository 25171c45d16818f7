//! Row bytes: one format byte, then bincode 2.
//!
//! The only module that names `bincode`. The crate is complete and no longer developed, so it is
//! pinned, meets only bytes that this program wrote into its own files, and is bounded all the same.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The format that is written. Older ones stay readable.
const FORMAT: u8 = 1;

/// No row makes the decoder take more memory than this, whatever it says.
const MAX_ROW: usize = 64 << 20;

/// Why bytes are not a row.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The format byte is missing or not known.
    #[error("a row of unknown format {0:?}")]
    UnknownFormat(Option<u8>),
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

/// The bytes of a row.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![FORMAT];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())?;
    Ok(bytes)
}

/// The value of a row.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_borrowed(bytes)
}

/// The same, of a value whose strings stay where they are.
pub(crate) fn decode_borrowed<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let rest = match bytes.split_first() {
        Some((&FORMAT, rest)) => rest,
        other => return Err(CodecError::UnknownFormat(other.map(|(format, _)| *format))),
    };
    let config = bincode::config::standard().with_limit::<MAX_ROW>();
    let (value, read) = bincode::serde::borrow_decode_from_slice(rest, config)?;
    match rest.len() - read {
        0 => Ok(value),
        trailing => Err(CodecError::Trailing(trailing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Facts, Package, Report};
    use proptest::prelude::*;

    #[test]
    fn rows_of_an_unknown_format_are_refused() {
        assert!(matches!(
            decode::<u8>(&[9, 1]),
            Err(CodecError::UnknownFormat(Some(9)))
        ));
        assert!(matches!(
            decode::<u8>(&[]),
            Err(CodecError::UnknownFormat(None))
        ));
        assert!(matches!(
            decode::<u8>(&[1, 1, 1]),
            Err(CodecError::Trailing(1))
        ));
    }

    /// What version 0.1 wrote: a later program must go on reading it.
    #[test]
    fn the_bytes_of_format_1_never_change() {
        let report = Report {
            packages: vec![Package {
                name: "a".into(),
                repo: Some("b".into()),
                ..Package::default()
            }],
            facts: Facts::from([("k".into(), "v".into())]),
            ..Report::default()
        };
        let bytes = encode(&report).unwrap();
        assert_eq!(
            bytes,
            [
                1, 1, 1, b'a', 0, 0, 0, 0, 0, 0, 1, 1, b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1,
                b'k', 1, b'v'
            ]
        );
        assert_eq!(decode::<Report>(&bytes).unwrap(), report);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            if let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            let _ = decode::<Report>(&bytes);
        }
    }
}
