//! The address of a BMC: six bytes, read once at the boundary.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A unicast EUI-48 address; shown as `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac([u8; 6]);

/// Why a text is no address of a BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not one of the four spellings.
    #[error("not a MAC address such as aa:bb:cc:dd:ee:ff")]
    Malformed,
    /// Eight bytes; cutting it down to six would name another device.
    #[error("an EUI-64 address; a BMC has six bytes")]
    Eui64,
    /// Zero, broadcast or multicast: no single device has it.
    #[error("a zero, broadcast or multicast address names no device")]
    NotOneDevice,
}

impl Mac {
    /// From its bytes; refused when they are zero or name a group.
    pub fn new(bytes: [u8; 6]) -> Result<Self, MacError> {
        if bytes == [0; 6] || bytes[0] & 1 == 1 {
            return Err(MacError::NotOneDevice);
        }
        Ok(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

/// Reads `aa:bb:cc:dd:ee:ff`, `aa-bb-..`, `aabb.ccdd.eeff` and `aabbccddeeff` in any case, with
/// blanks around it.
impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let text = text.trim();
        let separator = text.bytes().find(|b| !b.is_ascii_hexdigit());
        let group = match separator {
            None => text.len().max(1),
            Some(b':' | b'-') => 2,
            Some(b'.') => 4,
            Some(_) => return Err(MacError::Malformed),
        };
        let mut bytes = [0; 8];
        let mut digits = 0;
        for part in text.split(|c: char| separator == u8::try_from(c).ok()) {
            if part.len() != group {
                return Err(MacError::Malformed);
            }
            for c in part.chars() {
                let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let digit = digit.ok_or(MacError::Malformed)?;
                let byte: &mut u8 = bytes.get_mut(digits / 2).ok_or(MacError::Malformed)?;
                *byte = (*byte << 4) | digit;
                digits += 1;
            }
        }
        match (digits, bytes) {
            (16, _) => Err(MacError::Eui64),
            (12, [a, b, c, d, e, f, ..]) => Self::new([a, b, c, d, e, f]),
            _ => Err(MacError::Malformed),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_is_the_same_device() {
        for text in [
            "02:00:5e:30:00:20",
            "02-00-5E-30-00-20",
            "0200.5e30.0020",
            "02005E300020",
            "  02:00:5e:30:00:20 ",
        ] {
            assert_eq!(
                text.parse::<Mac>().unwrap().to_string(),
                "02:00:5e:30:00:20"
            );
        }
    }

    #[test]
    fn what_names_no_single_device_is_refused_with_its_reason() {
        let refused = |text: &str| text.parse::<Mac>().unwrap_err();
        assert_eq!(refused("00:00:00:00:00:00"), MacError::NotOneDevice);
        assert_eq!(refused("ff:ff:ff:ff:ff:ff"), MacError::NotOneDevice);
        assert_eq!(refused("01:00:5e:00:00:01"), MacError::NotOneDevice);
        assert_eq!(refused("02:00:5e:ff:fe:30:00:24"), MacError::Eui64);
        for text in [
            "",
            "2:0:5e:30:0:16",
            "02:00-5e:30:00:20",
            "0200:5e30:0020",
            "02005e30002",
            "g2005e300020",
            "02:00:5e:30:00:20:",
            "é",
        ] {
            assert_eq!(refused(text), MacError::Malformed, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_what_is_shown_is_read(text: String, bytes: [u8; 6]) {
            let _ = text.parse::<Mac>();
            if let Ok(mac) = Mac::new(bytes) {
                prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
            }
        }
    }
}
