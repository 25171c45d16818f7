//! Percent-encoding of a part of a URL: a path segment, or a value of a query (RFC 3986, section 2.1).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What RFC 3986 calls unreserved stands as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Every byte that is not unreserved becomes `%` and two hex digits.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The inverse of [`encode`]; `None`: it is no encoding of a text.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    parts.next();
    let is_hex = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let decoded = parts.all(is_hex).then(|| percent_decode_str(text));
    decoded?.decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in ".*") {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }
    }

    #[test]
    fn what_is_no_encoding_is_refused() {
        for text in ["%", "%4", "%g0", "a%", "%ff", "%%30", "%+1"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("a%2Bb%2b+").as_deref(), Some("a+b++"));
    }

    #[test]
    fn what_is_not_unreserved_is_escaped() {
        assert_eq!(encode("a-b.c_d~1"), "a-b.c_d~1");
        assert_eq!(encode("a b/c+\u{e9}%"), "a%20b%2Fc%2B%C3%A9%25");
    }
}
