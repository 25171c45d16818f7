//! Secrets of 256 bits that this process makes up, and how secrets are compared.

use sha2::{Digest as _, Sha256};
use std::fmt;
use std::hint::black_box;

/// A secret as it is given away, 64 hex digits. It is never printed.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn random() -> Result<Self, String> {
        let random = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new());
        let bytes = random.map_err(|_| "the system gives no random numbers".to_owned())?;
        Ok(Self::of(&bytes.expose()))
    }

    /// The one that these bytes are.
    pub(super) fn of(bytes: &[u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The hash of a secret: what is kept of it.
#[derive(Clone, Copy)]
pub(super) struct SecretHash([u8; 32]);

impl SecretHash {
    /// Of this text.
    pub(super) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether both are of the same secret, in a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        let differing = pairs.fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
        differing == 0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_like_no_other_and_never_printed() {
        let (a, b) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_eq!(a.text().len(), 64);
        assert_ne!(a.text(), b.text());
        assert!(SecretHash::of(a.text()).is(&SecretHash::of(a.text())));
        assert!(!SecretHash::of(a.text()).is(&SecretHash::of(b.text())));
        assert!(!SecretHash::of(a.text()).is(&SecretHash::of(&a.text()[1..])));
        let shown = format!("{a:?} {:?}", SecretHash::of(a.text()));
        assert_eq!(shown, "Secret(..) SecretHash(..)");
    }
}
