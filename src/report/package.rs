//! One installed package and its version.
//!
//! Strings of the header are [escaped](super::escape): they are text, and the header's own bytes can
//! be had from them, so that two packages whose Latin-1 names differ in one byte stay two.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// What `rpm -q` shows for a tag that is not there.
pub const ABSENT: &str = "(none)";

/// Epoch, version and release of a package.
///
/// Ordered bytewise, which is an order for lists, not rpm's order of versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Evr {
    /// 0 when the package has none: rpm treats both alike.
    pub epoch: u32,
    /// For example `5.1.8`.
    pub version: String,
    /// For example `6.el9`; empty only in reports of foreign agents.
    pub release: String,
}

impl Evr {
    /// Reads `[epoch:]version[-release]`; the inverse of [`fmt::Display`].
    ///
    /// A version holds no `-` and no `:`, so both cuts are unambiguous. What a foreign agent sends
    /// in spite of that stays part of the version: text before a `:` that is no number, a `-` at
    /// the end, a further `:` after an epoch of 0.
    pub fn parse(text: &str) -> Self {
        let (epoch, version, release) = Self::split(text);
        Self {
            epoch,
            version: version.to_owned(),
            release: release.to_owned(),
        }
    }

    /// Epoch, version and release in such a text.
    pub(super) fn split(text: &str) -> (u32, &str, &str) {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => match epoch.parse() {
                Ok(0) if rest.contains(':') => (0, text),
                Ok(number) => (number, rest),
                Err(_) => (0, text),
            },
            None => (0, text),
        };
        let cut = rest.rsplit_once('-');
        let (version, release) = cut.filter(|(_, r)| !r.is_empty()).unwrap_or((rest, ""));
        (epoch, version, release)
    }

    /// The text as [`fmt::Display`] writes it after [`Evr::parse`] has read it; a copy is made only
    /// where the two differ.
    pub(super) fn canonical(text: &str) -> Cow<'_, str> {
        let is_canonical = match text.split_once(':') {
            None => true,
            Some((epoch, _)) => {
                epoch.bytes().all(|b| b.is_ascii_digit())
                    && !epoch.starts_with('0')
                    && epoch.parse::<u32>().is_ok()
            }
        };
        match is_canonical {
            true => Cow::Borrowed(text),
            false => Cow::Owned(Self::parse(text).to_string()),
        }
    }
}

/// `[epoch:]version-release`, the epoch only when it is not 0.
impl fmt::Display for Evr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch != 0 {
            write!(f, "{}:", self.epoch)?;
        }
        f.write_str(&self.version)?;
        if !self.release.is_empty() {
            write!(f, "-{}", self.release)?;
        }
        Ok(())
    }
}

/// The source package that a binary package was built from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePackage<'a> {
    /// For example `openssl`.
    pub name: &'a str,
    /// `version-release`; a source rpm's file name has no epoch.
    pub version: &'a str,
}

/// What the package manager's history says of where a package came from.
///
/// StackRox treats all three cases differently: a package without an entry may be from any mapped
/// repository, one with an entry is from that repository or from none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// No history has an entry for the package, or there is no history.
    #[default]
    Unrecorded,
    /// An entry that names no repository: the package was removed, and put back by rpm alone.
    Unknown,
    /// An entry with this repository id, which is never empty. An id that begins with `@`
    /// (`@System`, `@commandline`) names no repository that anybody could enable.
    Repository(String),
}

impl Origin {
    /// An entry with this repository id; empty where the entry has none.
    pub fn recorded(id: &str) -> Self {
        match id {
            "" => Self::Unknown,
            id => Self::Repository(id.to_owned()),
        }
    }

    /// Whether a history has an entry for the package.
    pub fn is_recorded(&self) -> bool {
        *self != Self::Unrecorded
    }

    /// The id in the entry, also of a local origin; empty where there is none.
    pub fn id(&self) -> &str {
        match self {
            Self::Repository(id) => id,
            Self::Unrecorded | Self::Unknown => "",
        }
    }

    /// The repository that people are shown: not a local origin.
    pub fn repository(&self) -> Option<&str> {
        Some(repository_in(self.id())).filter(|id| !id.is_empty())
    }
}

/// The id of a repository as people are shown it: empty for a local origin.
pub(super) fn repository_in(id: &str) -> &str {
    if id.starts_with('@') { "" } else { id }
}

/// One installed package.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Package {
    /// Name without version.
    pub name: String,
    /// Epoch, version and release.
    pub evr: Evr,
    /// `x86_64`, `noarch`, ...; absent in some headers of keys and very old packages.
    pub arch: Option<String>,
    /// File name of the source rpm, for example `bash-5.1.8-6.el9.src.rpm`.
    pub source_rpm: Option<String>,
    /// `name:stream:version:context` of the module it came from.
    pub modularity_label: Option<String>,
    /// Who built it, for example `Red Hat, Inc.`.
    pub vendor: Option<String>,
    /// As the header has it, for example `GPLv3+`.
    pub license: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

impl Package {
    /// Name and version of the source package, read from the source rpm's file name.
    pub fn source(&self) -> Option<SourcePackage<'_>> {
        let file = self.source_rpm.as_deref()?;
        let stem = file
            .strip_suffix(".rpm")
            .and_then(|s| s.strip_suffix(".src").or_else(|| s.strip_suffix(".nosrc")))?;
        let release_at = stem.rfind('-')?;
        let name_end = stem.get(..release_at)?.rfind('-')?;
        let name = stem.get(..name_end).filter(|name| !name.is_empty())?;
        Some(SourcePackage {
            name,
            version: stem.get(name_end + 1..)?,
        })
    }

    /// `name:stream` of the module, without the version and context that nobody matches on.
    pub fn module(&self) -> Option<&str> {
        self.modularity_label.as_deref().map(module_in)
    }
}

/// `name:stream` in the label of a module.
pub(super) fn module_in(label: &str) -> &str {
    let mut colons = label.match_indices(':').map(|(at, _)| at);
    colons
        .nth(1)
        .and_then(|end| label.get(..end))
        .unwrap_or(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_epoch_of_zero_is_not_written() {
        assert_eq!(evr(0, "1.2", "3.el9").to_string(), "1.2-3.el9");
        assert_eq!(evr(2, "1.2", "3.el9").to_string(), "2:1.2-3.el9");
    }

    #[test]
    fn the_source_package_is_read_from_the_right_end_of_the_file_name() {
        let package = Package {
            source_rpm: Some("java-1.8.0-openjdk-1.8.0.402.b06-2.el9.src.rpm".into()),
            ..Package::default()
        };
        let source = package.source().unwrap();
        assert_eq!(source.name, "java-1.8.0-openjdk");
        assert_eq!(source.version, "1.8.0.402.b06-2.el9");
    }

    #[test]
    fn a_source_rpm_without_sources_is_one_too() {
        let package = Package {
            source_rpm: Some("blob-1-2.nosrc.rpm".into()),
            ..Package::default()
        };
        assert_eq!(package.source().unwrap().version, "1-2");
    }

    #[test]
    fn a_module_is_its_name_and_stream() {
        for (label, module) in [
            ("nodejs:18:9040020240301:rhel9", "nodejs:18"),
            ("nodejs:18", "nodejs:18"),
            ("odd", "odd"),
        ] {
            let package = Package {
                modularity_label: Some(label.into()),
                ..Package::default()
            };
            assert_eq!(package.module(), Some(module));
        }
    }

    proptest! {
        #[test]
        fn a_version_survives_text(epoch: u32, version in "[a-z0-9.+~^_]{1,12}", release in "[a-z0-9.+~^_]{1,12}") {
            let evr = evr(epoch, &version, &release);
            prop_assert_eq!(Evr::parse(&evr.to_string()), evr);
        }

        #[test]
        fn the_canonical_text_is_what_reading_and_writing_make_of_it(text in "[+0-2:a-]{0,10}") {
            prop_assert_eq!(Evr::canonical(&text), Evr::parse(&text).to_string());
        }

        /// What a foreign agent sent is the same report when it is sent on.
        #[test]
        fn any_text_read_as_a_version_survives_text(text in "[0-2:a-]{0,10}") {
            let evr = Evr::parse(&text);
            prop_assert_eq!(Evr::parse(&evr.to_string()), evr);
        }

        #[test]
        fn any_text_makes_a_version_and_a_source(text in ".{0,40}") {
            let _ = Evr::parse(&text);
            let package = Package { source_rpm: Some(text.clone()), modularity_label: Some(text), ..Package::default() };
            let _ = (package.source(), package.module());
        }
    }

    fn evr(epoch: u32, version: &str, release: &str) -> Evr {
        Evr {
            epoch,
            version: version.into(),
            release: release.into(),
        }
    }
}
