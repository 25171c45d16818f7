//! The token of a report: its key and the beginning of its digest, as one word.
//!
//! Peers send it back as it came and look into it no further. Equal tokens mean equal content.

use super::{Digest, Epoch, Generation, ReportKey};
use std::fmt;
use std::str::FromStr;

/// `<epoch>:<generation>:<16 hex digits of the digest>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Which report; its epoch is there.
    pub key: ReportKey,
    /// The first 16 hex digits of the agent's digest, in lower case.
    pub digest: String,
}

/// Why text is no token of ours; another agent's may have any form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token of afferent is EPOCH:GENERATION:DIGEST, with 16 hex digits of the digest")]
pub struct TokenError;

impl Token {
    /// The token of a report.
    pub fn new(key: ReportKey, digest: &Digest) -> Self {
        Self {
            key,
            digest: digest.short(),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, self.digest)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (key, digest) = text.rsplit_once(':').ok_or(TokenError)?;
        let (epoch, generation) = key.split_once(':').ok_or(TokenError)?;
        let number = |text: &str| {
            let plain = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| plain)
        };
        let is_digest = digest.len() == 16
            && digest
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match (
            number(epoch).and_then(Epoch::new),
            number(generation).and_then(Generation::new),
        ) {
            (Some(epoch), Some(generation)) if is_digest => Ok(Self {
                key: ReportKey {
                    epoch: Some(epoch),
                    generation,
                },
                digest: digest.to_owned(),
            }),
            _ => Err(TokenError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_text_and_nothing_else_is_one() {
        let token: Token = "77:12:0123456789abcdef".parse().unwrap();
        assert_eq!(token.key.to_string(), "77:12");
        assert_eq!(token.to_string(), "77:12:0123456789abcdef");
        for other in [
            "",
            "77:12",
            "0:12:0123456789abcdef",
            "77:0:0123456789abcdef",
            "+7:12:0123456789abcdef",
            "77:12:0123456789ABCDEF",
            "77:12:0123456789abcde",
            "77:12:13:0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(other.parse::<Token>().is_err(), "{other}");
        }
    }
}
