//! NKeys: Ed25519 keys as NATS writes them, in base32, with a letter in front that says whose.
//!
//! ```text
//! seed     S U .. = kind of key (10 bits), 32 bytes, CRC-16        a user's secret
//! public   U ..   = kind of key (8 bits),  32 bytes, CRC-16
//! ```

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use rustls::SignatureScheme;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;
use std::sync::Arc;

/// The letter S, as the first five of eight bits.
const SEED: u8 = 18 << 3;
/// The letter U.
const USER: u8 = 20 << 3;

/// What stands before an Ed25519 seed in PKCS #8.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A user's key.
#[derive(Debug)]
pub(super) struct UserKey(Arc<dyn SigningKey>);

impl UserKey {
    /// From a seed, `SU...`; `None` when it is none.
    pub(super) fn from_seed(text: &str) -> Option<Self> {
        let bytes = BASE32_NOPAD.decode(text.as_bytes()).ok()?;
        let (checked, crc) = bytes.split_last_chunk::<2>()?;
        let ([first, second], seed) = checked.split_first_chunk::<2>()?;
        let kind = ((first & 0b111) << 5) | (second >> 3);
        let is_seed = first & !0b111 == SEED && kind == USER && seed.len() == 32;
        if !is_seed || crc16(checked) != u16::from_le_bytes(*crc) {
            return None;
        }
        let der = PrivatePkcs8KeyDer::from([&PKCS8, seed].concat());
        rustls::crypto::ring::sign::any_eddsa_type(&der)
            .ok()
            .map(Self)
    }

    /// The public half, `U...`.
    pub(super) fn public(&self) -> Option<String> {
        let spki = self.0.public_key()?;
        let mut bytes = vec![USER];
        bytes.extend(spki.last_chunk::<32>()?);
        bytes.extend(crc16(&bytes).to_le_bytes());
        Some(BASE32_NOPAD.encode(&bytes))
    }

    /// The signature of what a server asked to have signed, in base64.
    pub(super) fn sign(&self, nonce: &str) -> Option<String> {
        let signer = self.0.choose_scheme(&[SignatureScheme::ED25519])?;
        let signature = signer.sign(nonce.as_bytes()).ok()?;
        Some(BASE64URL_NOPAD.encode(&signature))
    }
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user's pair; the seed is SHA-256 of `afferent`.
    const SEED_TEXT: &str = "SUAC4QSYFQ3RBBOZYZIHCJ52AZYH7XYOZX6P7ROBEEUNFQ3S6CFXEHXBUE";
    const PUBLIC: &str = "UDKROVO3O5BN65HOQDPZAH3XPEBA6GXXMVPNWGA2ZQNOY6G3QODKXFS2";

    #[test]
    fn a_seed_leads_to_its_public_key() {
        let key = UserKey::from_seed(SEED_TEXT).unwrap();
        assert_eq!(key.public().unwrap(), PUBLIC);
        assert_eq!(key.sign("nonce").unwrap().len(), 86);
    }

    #[test]
    fn a_seed_with_one_other_letter_is_none() {
        for at in 0..SEED_TEXT.len() {
            let mut other = SEED_TEXT.as_bytes().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(UserKey::from_seed(&other).is_none(), "{other}");
        }
        for other in ["", "S", "su", PUBLIC] {
            assert!(UserKey::from_seed(other).is_none(), "{other}");
        }
    }
}
