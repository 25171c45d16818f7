//! Ids of guests as words of a subject of NATS.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands in a subject as it is: letters, digits and `-_:@+`.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b':')
    .remove(b'@')
    .remove(b'+');

/// A guest's id as one word of a subject: every other byte becomes `%` and two hex digits, as in a URL. Two
/// ids never become the same word.
pub(crate) fn word(vm: &str) -> String {
    utf8_percent_encode(vm, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_with_dots_is_one_word() {
        assert_eq!(word("web-1.example:a@b+c_d"), "web-1%2Eexample:a@b+c_d");
        assert_eq!(word("a b*>%é"), "a%20b%2A%3E%25%C3%A9");
    }

    proptest! {
        #[test]
        fn no_two_ids_share_a_subject(id: String) {
            let text = word(&id);
            prop_assert!(!text.contains(['.', '*', '>', ' ']));
            let mut bytes = Vec::new();
            let mut rest = text.as_str();
            while let Some(first) = rest.chars().next() {
                if let Some(hex) = rest.strip_prefix('%') {
                    bytes.push(u8::from_str_radix(&hex[..2], 16).unwrap());
                    rest = &hex[2..];
                } else {
                    bytes.push(u8::try_from(first).unwrap());
                    rest = &rest[1..];
                }
            }
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), id);
        }
    }
}
