//! A reversible escape that makes any bytes text.
//!
//! rpm stores strings without an encoding, and old packages have Latin-1 in them. Inside this program
//! every string of a package header is escaped text: a byte that is not part of valid UTF-8 becomes
//! `\xhh`, a backslash becomes `\\`, everything else stays. Two different byte strings never become
//! the same text, and [`unescape`] gives the bytes back; nearly all strings are not changed at all.

use std::borrow::Cow;
use std::fmt::Write;

/// The text for these bytes.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => escape_text(text),
        Err(_) => {
            let mut text = String::with_capacity(bytes.len() + 8);
            for chunk in bytes.utf8_chunks() {
                text.push_str(&escape_text(chunk.valid()));
                for byte in chunk.invalid() {
                    // Writing into a string does not fail.
                    let _ = write!(text, "\\x{byte:02x}");
                }
            }
            Cow::Owned(text)
        }
    }
}

/// The same for bytes that are UTF-8: only backslashes change.
pub fn escape_text(text: &str) -> Cow<'_, str> {
    if text.contains('\\') {
        Cow::Owned(text.replace('\\', "\\\\"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The bytes that [`escape`] made this text from. A backslash that begins no escape, which only a
/// foreign peer sends, stands for itself.
pub fn unescape(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('\\') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (first, &rest[1..]),
            },
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(bytes)
}

fn digit(hex: u8) -> Option<u8> {
    let value = char::from(hex).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_no_utf8_and_backslashes_change() {
        for (bytes, text) in [
            (&b"bash"[..], "bash"),
            ("café".as_bytes(), "café"),
            (b"caf\xe9", "caf\\xe9"),
            (b"caf\\xe9", "caf\\\\xe9"),
            (b"\xc3", "\\xc3"),
            (b"", ""),
        ] {
            assert_eq!(escape(bytes), text);
            assert_eq!(unescape(text), bytes);
        }
        assert_eq!(unescape("a\\b\\x1g\\"), &b"a\\b\\x1g\\"[..]);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_and_no_two_share_a_text(
            a in proptest::collection::vec(prop_oneof![Just(b'\\'), Just(b'x'), Just(b'e'), Just(0xe9), any::<u8>()], 0..12),
            b in proptest::collection::vec(prop_oneof![Just(b'\\'), Just(b'x'), Just(b'e'), Just(0xe9), any::<u8>()], 0..12),
        ) {
            let (x, y) = (escape(&a), escape(&b));
            prop_assert_eq!(&*unescape(&x), &a[..]);
            prop_assert_eq!(x == y, a == b);
        }
    }
}
