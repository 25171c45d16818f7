//! rpm's order of versions: `rpmvercmp`, and the comparison of `[epoch:]version[-release]`.
//!
//! ```text
//! 1:3.0.7-27.el9_4
//! │ │     └ release: what follows the last `-`
//! │ └ version
//! └ epoch: digits before the first `:`; 0 when missing
//! ```
//!
//! Versions are bytes: rpm gives them no encoding, and only ASCII letters, digits, `~` and `^` decide.
//! The order is not total in the mathematical sense: texts that differ only in separators or leading
//! zeros (`1.0` and `1_00`) are equal in it. Lists are therefore sorted by [`Evr`]'s own order.
//!
//! [`Evr`]: super::Evr

use super::escape;
use std::cmp::Ordering;

/// A version cut into its parts, as rpm cuts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpmVersion<'a> {
    /// Digits; `None` when there is no `:` after leading digits.
    pub epoch: Option<&'a [u8]>,
    /// Between epoch and release.
    pub version: &'a [u8],
    /// After the last `-`, possibly empty; `None` when there is no `-`.
    pub release: Option<&'a [u8]>,
}

impl<'a> RpmVersion<'a> {
    /// Cuts `[epoch:]version[-release]`; every text is one.
    pub fn parse(text: &'a [u8]) -> Self {
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        // An epoch ends before the last `-`, or there is none: the first byte after digits is a `:`.
        let (epoch, rest) = match text.split_at(digits) {
            (epoch, [b':', rest @ ..]) => (Some(epoch), rest),
            _ => (None, text),
        };
        let cut = rest.iter().rposition(|byte| *byte == b'-');
        let (version, release) = match cut {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        Self {
            epoch,
            version,
            release,
        }
    }

    /// A missing or empty epoch is 0.
    fn epoch(&self) -> &'a [u8] {
        self.epoch.filter(|e| !e.is_empty()).unwrap_or(b"0")
    }

    /// The order in which rpm upgrades: a version without a release is lower than the same with one.
    pub fn compare(&self, other: &Self) -> Ordering {
        rpmvercmp(self.epoch(), other.epoch())
            .then_with(|| rpmvercmp(self.version, other.version))
            .then_with(|| match (self.release, other.release) {
                (Some(a), Some(b)) => rpmvercmp(a, b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            })
    }

    /// The order in which rpm matches dependencies: a release that is missing or empty on either side
    /// equals any release.
    pub fn compare_as_dependency(&self, other: &Self) -> Ordering {
        rpmvercmp(self.epoch(), other.epoch())
            .then_with(|| rpmvercmp(self.version, other.version))
            .then_with(|| match (self.release, other.release) {
                (Some(a), Some(b)) if !a.is_empty() && !b.is_empty() => rpmvercmp(a, b),
                _ => Ordering::Equal,
            })
    }
}

/// rpm's order of two versions in [escaped](super::escape) text, as packages of a report have them.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (a, b) = (escape::unescape(a), escape::unescape(b));
    RpmVersion::parse(&a).compare(&RpmVersion::parse(&b))
}

/// Compares two versions or two releases segment by segment.
///
/// Segments are runs of digits or of letters; everything else separates. A number is newer than
/// letters, a longer text than its beginning; `~` sorts before everything, even the end; `^` after
/// the end, but before any further segment.
pub fn rpmvercmp(a: &[u8], b: &[u8]) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (mut a, mut b) = (a, b);
    while !a.is_empty() || !b.is_empty() {
        (a, b) = (skip_separators(a), skip_separators(b));
        match (a.first(), b.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                (a, b) = (&a[1..], &b[1..]);
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            // The end is lower than a caret, any segment is higher.
            (Some(b'^'), other) => return caret(other),
            (other, Some(b'^')) => return caret(other).reverse(),
            (None, _) | (_, None) => break,
            (Some(_), Some(_)) => {}
        }
        let is_number = a[0].is_ascii_digit();
        let (a_segment, a_rest) = segment(a, is_number);
        let (b_segment, b_rest) = segment(b, is_number);
        if b_segment.is_empty() {
            // Of different kinds: the number is newer.
            return match is_number {
                true => Ordering::Greater,
                false => Ordering::Less,
            };
        }
        let order = match is_number {
            true => compare_numbers(a_segment, b_segment),
            false => a_segment.cmp(b_segment),
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    // Whoever has something left is newer.
    (!a.is_empty()).cmp(&!b.is_empty())
}

/// A caret against what the other side has in its place.
fn caret(other: Option<&u8>) -> Ordering {
    match other {
        None => Ordering::Greater,
        Some(_) => Ordering::Less,
    }
}

fn skip_separators(text: &[u8]) -> &[u8] {
    let separates = |byte: &&u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'~' | b'^');
    &text[text.iter().take_while(separates).count()..]
}

/// The leading run of digits or of letters, and what follows.
fn segment(text: &[u8], digits: bool) -> (&[u8], &[u8]) {
    let belongs = |byte: &&u8| match digits {
        true => byte.is_ascii_digit(),
        false => byte.is_ascii_alphabetic(),
    };
    text.split_at(text.iter().take_while(belongs).count())
}

/// Numbers of any length.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |number: &[u8]| number.iter().take_while(|digit| **digit == b'0').count();
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compare(a: &str, b: &str) -> Ordering {
        RpmVersion::parse(a.as_bytes()).compare(&RpmVersion::parse(b.as_bytes()))
    }

    #[test]
    fn tilde_sorts_before_the_end_and_caret_after_it() {
        let ascending = [
            "1.0~rc1", "1.0~rc2", "1.0", "1.0^", "1.0^git1", "1.0^git2", "1.0.1", "1.1", "1.10",
            "2a", "2.0", "10", "1:0.1", "01:0.2", "10:0",
        ];
        for (index, a) in ascending.iter().enumerate() {
            for b in &ascending[index + 1..] {
                assert_eq!(compare(a, b), Ordering::Less, "{a} {b}");
                assert_eq!(compare(b, a), Ordering::Greater, "{b} {a}");
            }
        }
    }

    #[test]
    fn separators_and_leading_zeros_do_not_count() {
        for (a, b) in [
            ("1.0", "1_0"),
            ("1.0", "1.00"),
            ("0:1", "1"),
            (":1", "1"),
            ("1\u{e9}0", "1.0"),
            ("1.0.", "1.0"),
        ] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn a_missing_release_is_lower_in_upgrades_and_equal_in_dependencies() {
        let [with, without] = ["1.0-1", "1.0"].map(|text| RpmVersion::parse(text.as_bytes()));
        assert_eq!(with.compare(&without), Ordering::Greater);
        assert_eq!(with.compare_as_dependency(&without), Ordering::Equal);
        assert_eq!(without.compare_as_dependency(&with), Ordering::Equal);
    }

    #[test]
    fn a_number_may_be_longer_than_any_integer() {
        let long = "9".repeat(400);
        assert_eq!(compare(&long, &format!("1{long}")), Ordering::Less);
        assert_eq!(compare(&format!("000{long}"), &long), Ordering::Equal);
    }

    #[test]
    fn escaped_bytes_are_compared_as_bytes() {
        let latin = escape::escape(b"1\xe90-1");
        assert_eq!(compare_versions(&latin, "1.0-1"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn any_bytes_compare_alike_from_both_sides(
            a in proptest::collection::vec(any::<u8>(), 0..24),
            b in proptest::collection::vec(any::<u8>(), 0..24),
        ) {
            let (x, y) = (RpmVersion::parse(&a), RpmVersion::parse(&b));
            prop_assert_eq!(x.compare(&y), y.compare(&x).reverse());
            prop_assert_eq!(x.compare_as_dependency(&y), y.compare_as_dependency(&x).reverse());
            prop_assert_eq!(x.compare(&x), Ordering::Equal);
        }
    }
}
