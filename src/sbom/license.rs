//! The licence of a package: an SPDX identifier, an SPDX expression, or a text in the packager's own words.
//!
//! Only what is valid as it is written counts as SPDX. Headers of older distributions have the short names of
//! Fedora (`GPLv2+ and MIT`), which nobody can translate without a judgement, and those stay text.

use super::text::readable;
use spdx::{AdditionItem, Expression, LicenseItem};
use std::borrow::Cow;
use std::collections::HashMap;

/// The licence of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum License<'a> {
    /// An identifier of the SPDX list.
    Id(&'a str),
    /// An expression of which every part is in the SPDX lists.
    Expression(&'a str),
    /// Anything else.
    Text(Cow<'a, str>),
}

/// Licences that were looked at already: few different ones occur in a system.
#[derive(Default)]
pub(super) struct Licenses<'a>(HashMap<&'a str, License<'a>>);

impl<'a> Licenses<'a> {
    /// The licence in a header; `None` when it has none.
    pub(super) fn of(&mut self, tag: Option<&'a str>) -> Option<License<'a>> {
        let tag = tag.filter(|tag| !tag.is_empty())?;
        Some(self.0.entry(tag).or_insert_with(|| classify(tag)).clone())
    }
}

fn classify(tag: &str) -> License<'_> {
    if is_listed(tag) {
        License::Id(tag)
    } else if is_expression(tag) {
        License::Expression(tag)
    } else {
        License::Text(readable(tag))
    }
}

/// Whether the list has this identifier. The crate's table holds some that the list does not.
fn is_listed(id: &str) -> bool {
    let is_extra = id == "NOASSERTION" || id.ends_with("-invariants");
    let all = spdx::identifiers::LICENSES;
    !is_extra && all.binary_search_by(|license| license.name.cmp(id)).is_ok()
}

fn is_expression(text: &str) -> bool {
    // The parser has no bound of its own on nesting; no licence tag comes near this one.
    const LONGEST: usize = 1024;
    // It reads any white space as a space.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~');
    if text.len() > LONGEST || text.trim() != text || !text.bytes().all(is_plain) {
        return false;
    }
    let Ok(expression) = Expression::parse(text) else {
        return false;
    };
    let mut parts = expression.requirements();
    parts.all(|part| {
        let is_license =
            matches!(&part.req.license, LicenseItem::Spdx { id, .. } if is_listed(id.name));
        is_license && !matches!(part.req.addition, Some(AdditionItem::Other { .. }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_valid_as_written_is_an_identifier_or_an_expression() {
        for id in [
            "MIT",
            "GPL-2.0-or-later",
            "GPL-2.0+",
            "GPL-2.0",
            "bzip2-1.0.6",
        ] {
            assert_eq!(classify(id), License::Id(id));
        }
        for expression in [
            "MIT AND GPL-2.0-only",
            "(MIT OR Apache-2.0) AND BSD-3-Clause",
            "GPL-3.0-or-later WITH GCC-exception-3.1",
            "Apache-2.0+",
        ] {
            assert_eq!(classify(expression), License::Expression(expression));
        }
        for text in [
            "GPLv2+",
            "mit",
            "MIT and BSD",
            "MIT AND Public Domain",
            "MIT AND LicenseRef-Fedora-Public-Domain",
            "LicenseRef-x",
            "GPL-2.0-only WITH AdditionRef-x",
            "MIT AND",
            "NOASSERTION",
            "NONE",
            "GFDL-1.1-invariants",
            "MIT\n",
            "(",
        ] {
            assert!(matches!(classify(text), License::Text(_)), "{text}");
        }
    }

    #[test]
    fn a_header_without_a_licence_has_none() {
        let mut licenses = Licenses::default();
        assert_eq!(licenses.of(None), None);
        assert_eq!(licenses.of(Some("")), None);
        assert_eq!(licenses.of(Some("MIT")), Some(License::Id("MIT")));
    }
}
