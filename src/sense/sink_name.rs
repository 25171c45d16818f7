//! Names of sinks: what tells the pending documents of several apart.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name, in bytes.
const LONGEST: usize = 32;

/// Names a sink: 1 to 32 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkName(Arc<str>);

impl SinkName {
    /// What a sink is called that was given without a name.
    pub const UNNAMED: &'static str = "default";

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the name of the sink that was given without one.
    pub fn is_default(&self) -> bool {
        &*self.0 == Self::UNNAMED
    }

    /// Cuts `NAME=` from the front of a value. What stands before a `=` and is no name is part of the value,
    /// as in `file:/a=b`.
    ///
    /// # Examples
    /// ```
    /// use afferent::sense::SinkName;
    /// let (name, rest) = SinkName::cut("siem=https://c");
    /// assert_eq!((name.map(|name| name.to_string()).as_deref(), rest), (Some("siem"), "https://c"));
    /// assert_eq!(SinkName::cut("nats://c?stream=R").1, "nats://c?stream=R");
    /// ```
    pub fn cut(text: &str) -> (Option<Self>, &str) {
        let cut = text.split_once('=');
        let cut = cut.and_then(|(name, rest)| Some((name.parse().ok()?, rest)));
        cut.map_or((None, text), |(name, rest)| (Some(name), rest))
    }
}

impl Default for SinkName {
    fn default() -> Self {
        Self(Self::UNNAMED.into())
    }
}

impl FromStr for SinkName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        match (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_allowed) {
            true => Ok(Self(text.into())),
            false => Err(format!(
                "{text:?} is no name of a sink: 1 to {LONGEST} of a-z, 0-9 and -"
            )),
        }
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_before_the_first_equals_sign_and_has_no_other_letters() {
        for (text, name, rest) in [
            ("siem=https://c", Some("siem"), "https://c"),
            ("a=b=c", Some("a"), "b=c"),
            ("default=/t", Some("default"), "/t"),
            ("=x", None, "=x"),
            ("Siem=x", None, "Siem=x"),
            ("file:/a=b", None, "file:/a=b"),
            ("nats://c?stream=R", None, "nats://c?stream=R"),
            ("/path", None, "/path"),
        ] {
            let (cut, value) = SinkName::cut(text);
            assert_eq!((cut.as_ref().map(SinkName::as_str), value), (name, rest));
        }
        assert!("a".repeat(LONGEST).parse::<SinkName>().is_ok());
        assert!("a".repeat(LONGEST + 1).parse::<SinkName>().is_err());
    }
}
