//! The grammar of `find`: `NAME [OP [EPOCH:]VERSION[-RELEASE]]`.
//!
//! A version is compared as in rpm's dependencies: a missing epoch is 0, a missing release matches any. A bare
//! name matches every version.

use crate::report::escape;
use crate::report::evr::RpmVersion;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// How an installed version must stand to the one that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `!=`
    NotEqual,
}

/// Operators as they are typed; those of two characters first.
const OPERATORS: [(&str, Comparison); 6] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("!=", Comparison::NotEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
    ("=", Comparison::Equal),
];

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Greater => order.is_gt(),
            Self::NotEqual => order.is_ne(),
        }
    }
}

/// Which packages are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFilter {
    /// Name, exactly.
    pub name: String,
    /// How the version must stand to this one; `None`: any.
    pub version: Option<(Comparison, String)>,
}

/// Why text is no [`PackageFilter`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not NAME [OP [EPOCH:]VERSION[-RELEASE]], OP one of < <= = >= > !=: {what}")]
pub struct FilterError {
    text: String,
    what: &'static str,
}

impl FromStr for PackageFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let wrong = |what| FilterError {
            text: text.chars().take(160).collect(),
            what,
        };
        let at = text.find(['<', '>', '=', '!']);
        let (name, rest) = text.split_at(at.unwrap_or(text.len()));
        let name = name.trim();
        if name.is_empty() {
            return Err(wrong("the name is missing"));
        }
        if name.contains(char::is_whitespace) {
            return Err(wrong(
                "a name has no spaces, and an operator stands behind it",
            ));
        }
        let filter = |version| Self {
            name: name.to_owned(),
            version,
        };
        if rest.is_empty() {
            return Ok(filter(None));
        }
        let operator = OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (sign, comparison) = operator.ok_or_else(|| wrong("the operator is none of these"))?;
        let version = rest.get(sign.len()..).unwrap_or_default().trim();
        check_version(version).map_err(wrong)?;
        Ok(filter(Some((*comparison, version.to_owned()))))
    }
}

fn check_version(version: &str) -> Result<(), &'static str> {
    if version.is_empty() {
        return Err("the version is missing");
    }
    let parts = RpmVersion::parse(version.as_bytes());
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~^".contains(byte);
    let epoch = parts.epoch.unwrap_or(b"0");
    if epoch.is_empty() || epoch.len() > 10 {
        return Err("an epoch is a number");
    }
    if parts.version.is_empty() || !parts.version.iter().all(allowed) {
        return Err("a version is letters, digits and . _ + ~ ^");
    }
    if let Some(release) = parts.release
        && (release.is_empty() || !release.iter().all(allowed))
    {
        return Err("a release is letters, digits and . _ + ~ ^");
    }
    Ok(())
}

/// The inverse of reading it.
impl fmt::Display for PackageFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some((comparison, version)) = &self.version {
            let operator = OPERATORS.iter().find(|(_, held)| held == comparison);
            let sign = operator.map_or("=", |(sign, _)| sign);
            write!(f, " {sign} {version}")?;
        }
        Ok(())
    }
}

impl PackageFilter {
    /// Whether a package of the right name has a version that matches.
    pub fn matches_version(&self, version: &str) -> bool {
        self.version.as_ref().is_none_or(|(comparison, wanted)| {
            let installed = escape::unescape(version);
            let order = RpmVersion::parse(&installed)
                .compare_as_dependency(&RpmVersion::parse(wanted.as_bytes()));
            comparison.holds(order)
        })
    }
}

/// Whether a guest with this `ID` and `VERSION_ID` is meant by `rhel`, `rhel-9` or `rhel-9.4`.
pub fn matches_os(wanted: &str, id: &str, version: &str) -> bool {
    let Some(rest) = wanted.strip_prefix(id).filter(|_| !id.is_empty()) else {
        return false;
    };
    match rest.strip_prefix('-') {
        None => rest.is_empty(),
        Some(wanted) => version
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
    }
}

/// Whether a kernel with this `uname -r` is of this installed version.
pub fn runs(uname: &str, installed: &str) -> bool {
    let version = RpmVersion::parse(installed.as_bytes());
    let release = version.release.unwrap_or_default();
    let rest = uname
        .as_bytes()
        .strip_prefix(version.version)
        .and_then(|rest| rest.strip_prefix(b"-"))
        .and_then(|rest| rest.strip_prefix(release));
    // Behind it stand the architecture and, with some, the flavour.
    rest.is_some_and(|rest| rest.first().is_none_or(|byte| b".+-".contains(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> PackageFilter {
        text.parse().unwrap()
    }

    #[test]
    fn every_operator_compares_as_it_says() {
        for (text, lower, same, higher) in [
            ("a < 1:2-3", true, false, false),
            ("a <= 1:2-3", true, true, false),
            ("a = 1:2-3", false, true, false),
            ("a >= 1:2-3", false, true, true),
            ("a > 1:2-3", false, false, true),
            ("a != 1:2-3", true, false, true),
            ("a", true, true, true),
        ] {
            let filter = filter(text);
            let found = ["2-4", "1:2-3", "1:2-10"].map(|version| filter.matches_version(version));
            assert_eq!(found, [lower, same, higher], "{text}");
        }
    }

    #[test]
    fn without_a_release_any_matches_and_without_an_epoch_it_is_zero() {
        assert!(filter("a = 2").matches_version("2-9.el9"));
        assert!(!filter("a < 2").matches_version("2-9.el9"));
        assert!(!filter("a = 2").matches_version("1:2-9.el9"));
        assert!(filter("a>=0:2").matches_version("2-1"));
    }

    #[test]
    fn nonsense_is_refused_with_what_is_wrong() {
        for (text, what) in [
            ("", "the name is missing"),
            (" < 1", "the name is missing"),
            ("a b", "a name has no spaces"),
            ("a 1", "a name has no spaces"),
            ("a <", "the version is missing"),
            ("a ! 1", "the operator is none of these"),
            ("a == 1", "a version is letters"),
            ("a < x:1", "a version is letters"),
            ("a < :1", "an epoch is a number"),
            ("a < 1-", "a release is letters"),
            ("a < 1-2-3", "a version is letters"),
            ("a < 1 2", "a version is letters"),
        ] {
            let error = text.parse::<PackageFilter>().unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn an_os_is_named_by_id_or_with_a_version() {
        for (wanted, matches) in [
            ("rhel", true),
            ("rhel-9", true),
            ("rhel-9.4", true),
            ("rhel-9.40", false),
            ("rhel-8", false),
            ("rhe", false),
            ("rhel-", false),
            ("rhel9", false),
            ("fedora", false),
        ] {
            assert_eq!(matches_os(wanted, "rhel", "9.4"), matches, "{wanted}");
        }
        assert!(matches_os("opensuse-leap-15.6", "opensuse-leap", "15.6"));
        assert!(!matches_os("x", "", ""));
    }

    #[test]
    fn a_running_kernel_is_told_from_one_that_begins_alike() {
        let running = "5.14.0-427.13.1.el9_4.x86_64";
        for (installed, runs_it) in [
            ("5.14.0-427.13.1.el9_4", true),
            ("5.14.0-427.13.1.el9", false),
            ("5.14.0-427.13.1.el9_5", false),
            ("5.14.0-427", true),
            ("5.14.1-427.13.1.el9_4", false),
        ] {
            assert_eq!(runs(running, installed), runs_it, "{installed}");
        }
    }

    proptest! {
        #[test]
        fn a_filter_survives_text(text in "[a-z+-]{1,4} ?(<=|>=|!=|<|>|=) ?([0-9]{1,3}:)?[0-9a-z.~^]{1,5}(-[0-9a-z.]{1,4})?") {
            let filter: PackageFilter = text.parse().unwrap();
            prop_assert_eq!(filter.to_string().parse(), Ok(filter));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}", version in ".{0,12}") {
            if let Ok(filter) = text.parse::<PackageFilter>() {
                let _ = filter.matches_version(&version);
            }
            let _ = (matches_os(&text, &version, &text), runs(&text, &version));
        }
    }
}
