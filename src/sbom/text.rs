//! Foreign text as a document may hold it: UTF-8, on one line, and never a control character.

use crate::report::escape::unescape;
use crate::visible::visible;
use std::borrow::Cow;

/// Readable text of a [escaped](crate::report::escape) string. A header's bytes that are not UTF-8 stay
/// escapes (`\xe9`), and so do control characters. Two strings may become the same text.
pub(super) fn readable(escaped: &str) -> Cow<'_, str> {
    match unescape(escaped) {
        // Nothing was escaped.
        Cow::Borrowed(_) => visible(escaped),
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Cow::Owned(visible(&text).into_owned()),
            Err(_) => visible(escaped),
        },
    }
}

/// The same of what may be absent or empty.
pub(super) fn some_readable(escaped: Option<&String>) -> Option<Cow<'_, str>> {
    escaped
        .filter(|text| !text.is_empty())
        .map(|text| readable(text))
}

/// A URL that readers accept: of a usual scheme, and of the characters of RFC 3986 alone.
pub(super) fn url(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = ["http", "https", "ftp", "git"].contains(&scheme);
    let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._~:/?#@!$&'()*+,;=%".contains(&c);
    let has_host = rest
        .bytes()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    let mut escapes = rest.split('%').skip(1);
    let are_escapes = escapes.all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    let one_fragment = rest.bytes().filter(|c| *c == b'#').count() <= 1;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_host = host
        .bytes()
        .all(|c| c.is_ascii_alphanumeric() || b".-_:".contains(&c))
        && host
            .split_once(':')
            .is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    (is_scheme
        && has_host
        && is_host
        && one_fragment
        && are_escapes
        && rest.bytes().all(is_allowed))
    .then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::escape::escape;

    #[test]
    fn bytes_that_are_no_text_are_shown_as_escapes() {
        for (bytes, text) in [
            (&b"bash"[..], "bash"),
            ("caf\u{e9}".as_bytes(), "caf\u{e9}"),
            (b"caf\xe9", "caf\\xe9"),
            (b"a\\b", "a\\b"),
            (b"a\x1b[2J\n", "a\\x1b[2J\\n"),
            (b"a\x1b\xff\\", "a\\u001b\\xff\\\\"),
        ] {
            let escaped = escape(bytes);
            let shown = readable(&escaped).replace("\\u001b", "\\x1b");
            assert_eq!(shown, text.replace("\\u001b", "\\x1b"));
        }
    }

    #[test]
    fn only_what_is_a_url_is_one() {
        for good in [
            "https://www.gnu.org/software/bash",
            "http://example.com:80/a?b=c#d",
            "ftp://x.y/%7Eme/",
        ] {
            assert_eq!(url(good), Some(good));
        }
        for bad in [
            "",
            "www.gnu.org",
            "javascript:alert(1)",
            "http://",
            "http:///x",
            "http://a b/",
            "http://a/%zz",
            "http://a/%e",
            "http://a/\u{e9}",
            "http://a/#b#c",
            "http://[::1/",
            "http://a:b/",
            "http://a/<b>",
        ] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }
}
