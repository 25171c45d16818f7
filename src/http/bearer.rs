//! A secret from a file for a header: read when needed, never shown.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Longest token file that is read, in bytes.
const MAX_TOKEN: u64 = 64 << 10;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BearerError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The token file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What it holds cannot be a token: nothing, or something that no header can carry.
    #[error("{}: holds no token", path.display())]
    NoToken {
        /// The token file.
        path: PathBuf,
    },
}

/// The value of an `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bearer(String);

/// The value of an `X-Api-Key` header.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ApiKey(String);

impl ApiKey {
    /// Reads the key in `path`; blanks around it do not count.
    pub(crate) fn from_file(path: &Path) -> Result<Self, BearerError> {
        token(path).map(Self)
    }

    /// Name and value of the header.
    pub(crate) fn header(&self) -> (&'static str, &str) {
        ("X-Api-Key", &self.0)
    }
}

impl Bearer {
    /// Reads the token in `path`; blanks around it do not count.
    pub(crate) fn from_file(path: &Path) -> Result<Self, BearerError> {
        token(path).map(|token| Self(format!("Bearer {token}")))
    }

    /// Name and value of the header.
    pub(crate) fn header(&self) -> (&'static str, &str) {
        ("Authorization", &self.0)
    }
}

/// The token in a file.
fn token(path: &Path) -> Result<String, BearerError> {
    let text = read(path).map_err(|source| BearerError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(BearerError::NoToken {
            path: path.to_owned(),
        });
    }
    Ok(token.to_owned())
}

/// Says that there is one, and nothing else.
impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

/// The same.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

fn read(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_TOKEN)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_without_its_newline_and_never_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let bearer = Bearer::from_file(file.path()).unwrap();
        assert_eq!(bearer.header(), ("Authorization", "Bearer s3cret"));
        let key = ApiKey::from_file(file.path()).unwrap();
        assert_eq!(key.header(), ("X-Api-Key", "s3cret"));
        assert!(!format!("{bearer:?}{key:?}").contains("s3cret"));
    }

    #[test]
    fn what_cannot_be_a_header_is_no_token_and_is_not_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for content in ["", "\n", "two words", "a\u{1}b"] {
            std::fs::write(file.path(), content).unwrap();
            let error = Bearer::from_file(file.path()).unwrap_err();
            assert!(error.to_string().ends_with("holds no token"), "{error}");
        }
    }
}
