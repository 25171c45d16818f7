//! Text of others on its way to people: nothing in it begins a line, changes direction, or speaks to a
//! terminal.
//!
//! Control characters, line and paragraph separators and bidi controls are written as escapes (`\x1b`,
//! `\u202e`), bytes that are not UTF-8 as `\xff`. Everything else stays as it is. The log, standard output
//! and standard error pass all they write through here; where foreign text must stay on one line or in
//! one cell, it passes [`visible`] first, or is kept as [`Foreign`].

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Characters of a peer's message that are kept for people.
const KEPT: usize = 200;

/// A peer's message, as people may see it: on one line, visible, and at most 200 characters of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign(String);

impl From<&str> for Foreign {
    fn from(text: &str) -> Self {
        let end = text.char_indices().nth(KEPT).map(|(at, _)| at);
        let kept = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
        Self(visible(kept).into_owned())
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `text` on one line.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// `text` in the lines that it has: newlines and tabs stay.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'))
}

/// Bytes in the lines that they have. JSON stays the same JSON: it has control characters only as
/// escapes, and the others are escaped here as JSON does it.
pub fn visible_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&visible_lines(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

fn escaped(text: &str, hide: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Nearly all text is plain ASCII, and all of its bytes are looked at together.
    let odd = text
        .bytes()
        .fold(false, |odd, byte| odd | !matches!(byte, b' '..=b'~'));
    if !odd || !text.contains(&hide) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        let code = u32::from(c);
        // Writing to a String cannot fail.
        let _ = match c {
            _ if !hide(c) => shown.write_char(c),
            '\n' => shown.write_str("\\n"),
            '\0'..' ' => write!(shown, "\\x{code:02x}"),
            _ => write!(shown, "\\u{code:04x}"),
        };
    }
    Cow::Owned(shown)
}

/// Whether `c` does something else than being seen.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // separators
            '\u{2028}' | '\u{2029}'
            // direction: marks, embeddings, overrides, isolates
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // a byte order mark in the middle
            | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_seen_is_written_as_an_escape() {
        for (text, shown) in [
            ("bash 5.1 café 日本", "bash 5.1 café 日本"),
            ("x\n<0>forged", "x\\n<0>forged"),
            ("\u{1b}[31m\r\t", "\\x1b[31m\\x0d\\x09"),
            ("\u{7f}\u{85}\u{9b}", "\\u007f\\u0085\\u009b"),
            (
                "a\u{202e}b\u{2028}c\u{2066}\u{feff}",
                "a\\u202eb\\u2028c\\u2066\\ufeff",
            ),
            ("a\\b", "a\\b"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible_lines("a\tb\n\u{1b}c"), "a\tb\n\\x1bc");
        assert_eq!(visible_bytes(b"a\xff\xc3\n\x07"), "a\\xff\\xc3\n\\x07");
    }

    #[test]
    fn a_message_is_cut_before_it_is_made_visible() {
        let long = Foreign::from("é\u{1b}".repeat(10_000).as_str()).to_string();
        assert!(
            long.chars().count() <= 4 * KEPT && long.ends_with("\\x1b"),
            "{long}"
        );
    }

    proptest! {
        #[test]
        fn no_text_hides_anything(text: String, bytes: Vec<u8>) {
            prop_assert!(!visible(&text).contains(is_hidden));
            prop_assert!(!visible_bytes(&bytes).contains(|c| is_hidden(c) && c != '\n' && c != '\t'));
        }

        #[test]
        fn json_stays_the_same_json(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let back: String = serde_json::from_str(&visible_bytes(json.as_bytes())).unwrap();
            prop_assert_eq!(back, text);
        }
    }
}
