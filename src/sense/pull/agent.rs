//! What an agent says of itself, kept for `status` and metrics: its version, its facts, its mapping.

use crate::report::{Facts, facts};
use crate::sense::mapping::agent::AgentMapping;
use crate::visible::visible;
use crate::wire::meta::Meta;
use std::collections::BTreeMap;

/// Characters of a version that are kept: it is foreign text, and there are ten thousand of them.
const LONGEST_VERSION: usize = 64;

/// Bytes of facts that are kept of an agent.
const MOST_FACTS: usize = 1536;

/// Facts that are shown elsewhere, or differ from scan to scan.
const LEFT_OUT: [&str; 4] = [
    facts::GUEST_ID,
    facts::LAST_SCAN_AT,
    facts::REPORT_DIGEST,
    facts::SCAN_TRIGGER,
];

/// What an agent said of itself last. All of it is visible text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentInfo {
    /// Its version; empty if it says none.
    pub version: Box<str>,
    /// Its facts, as a JSON object, as far as they fit.
    pub facts: Box<str>,
    /// Which mapping it has, and who brings it.
    pub mapping: AgentMapping,
}

impl AgentInfo {
    /// What the meta of an answer says.
    pub fn of(meta: &Meta) -> Self {
        Self {
            version: shown_version(&meta.agent_version),
            facts: told(&meta.facts),
            mapping: AgentMapping::from(meta),
        }
    }

    /// Takes over what an answer says. One without facts, as to a refused request, leaves those before.
    pub fn update(&mut self, newer: Self) {
        let facts = match newer.facts.is_empty() {
            true => std::mem::take(&mut self.facts),
            false => newer.facts,
        };
        *self = Self { facts, ..newer };
    }
}

/// A version as it is kept and shown.
pub fn shown_version(version: &str) -> Box<str> {
    let version: String = version.chars().take(LONGEST_VERSION).collect();
    visible(&version).chars().take(LONGEST_VERSION).collect()
}

/// The facts that are kept, as JSON; empty if there are none.
fn told(facts: &Facts) -> Box<str> {
    let mut room = MOST_FACTS;
    let mut kept = BTreeMap::new();
    for (name, value) in facts {
        let is_left_out = LEFT_OUT.contains(&name.as_str());
        if is_left_out || name.len() + value.len() > room {
            continue;
        }
        room -= name.len() + value.len();
        kept.insert(visible(name), visible(value));
    }
    match kept.is_empty() {
        true => Box::default(),
        // Fails for no map of texts.
        false => serde_json::to_string(&kept).unwrap_or_default().into(),
    }
}

/// What the versions that are not told apart are called.
pub const OTHER: &str = "other";

/// Agents of each version: the 20 most frequent, and the others together. Versions that are none count as
/// `unknown`.
pub fn count_versions<'a>(versions: impl Iterator<Item = &'a str>) -> Vec<(&'a str, usize)> {
    sum_versions(versions.map(|version| (version, 1)))
}

/// The same of versions that were counted.
pub fn sum_versions<'a>(versions: impl Iterator<Item = (&'a str, usize)>) -> Vec<(&'a str, usize)> {
    /// Versions that are told apart: agents choose them, and each is a time series.
    const MOST: usize = 20;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (version, count) in versions {
        let version = match version {
            "" => "unknown",
            version => version,
        };
        *counts.entry(version).or_default() += count;
    }
    // An agent that calls itself so is among them.
    let mut others = counts.remove(OTHER).unwrap_or(0);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    others += counts
        .drain(MOST.min(counts.len())..)
        .map(|(_, n)| n)
        .sum::<usize>();
    if others > 0 {
        counts.push((OTHER, others));
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: agents that call themselves something else every day fill Prometheus, or write lines of
    /// their own into its page.
    #[test]
    fn twenty_versions_are_told_apart_and_no_agent_is_lost() {
        let names: Vec<String> = (0..40).map(|n| format!("v{n:02}")).collect();
        let mut versions = vec!["0.2.0"; 50];
        versions.extend(["", "other", "0.1.0", "0.1.0"]);
        versions.extend(names.iter().map(String::as_str));
        let counts = count_versions(versions.iter().copied());
        assert_eq!(counts.len(), 21);
        assert_eq!(counts[0], ("0.2.0", 50));
        assert_eq!(counts[1], ("0.1.0", 2));
        assert_eq!(counts.iter().map(|(_, n)| n).sum::<usize>(), versions.len());
        let of = |name: &str| counts.iter().filter(|(other, _)| *other == name).count();
        assert_eq!((of("other"), of("unknown")), (1, 1));
        assert_eq!(counts.last().map(|(name, _)| *name), Some("other"));
        assert!(count_versions(std::iter::empty()).is_empty());
    }

    /// Loss prevented: a guest that takes the sensor's memory with its facts, or writes to the terminal of whoever
    /// asks for the status.
    #[test]
    fn what_an_agent_says_of_itself_is_bounded_and_visible() {
        let facts = (0..1000).map(|n| (format!("fact{n:04}"), "\u{1b}[31m".repeat(10)));
        let meta = Meta {
            agent_version: "\u{202e}\n".repeat(1000),
            facts: facts
                .chain([("aa".to_owned(), "x".repeat(1 << 20))])
                .chain([(facts::LAST_SCAN_AT.to_owned(), "now".to_owned())])
                .collect(),
            ..Meta::default()
        };
        let mut info = AgentInfo::of(&meta);
        assert_eq!(info.version.chars().count(), 64);
        assert!(!info.version.contains(['\u{202e}', '\n']));
        assert!(info.facts.len() < 8 * MOST_FACTS, "{}", info.facts.len());
        let facts: BTreeMap<String, String> = serde_json::from_str(&info.facts).unwrap();
        assert!(facts.len() > 10 && facts.values().all(|value| !value.contains('\u{1b}')));
        assert!(!facts.contains_key(facts::LAST_SCAN_AT) && !facts.contains_key("aa"));
        // A refusal names no facts.
        let known = info.facts.clone();
        info.update(AgentInfo::of(&Meta {
            agent_version: "0.3".into(),
            ..Meta::default()
        }));
        assert_eq!((&*info.version, &info.facts), ("0.3", &known));
    }
}
