//! The oracle: what Scanner V4 refuses, misreads or dies of, as rules over the bytes of an index report.
//!
//! Written from what StackRox's own code was seen to do with each field (`docs/stackrox.md`), and it
//! shares nothing with the code that makes a report but the table of field numbers.

use super::cpe_syntax;
use afferent::wire::message::{
    Contents, Distribution, Environment, IndexReport, Package, Repository,
};
use std::collections::{BTreeMap, BTreeSet};

/// The CPE of everything.
pub const WILDCARD: &str = "cpe:2.3:*:*:*:*:*:*:*:*:*:*:*";

/// What a report can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The report says that it is whole.
    Finished,
    /// `hash_id` is empty or a digest.
    Hash,
    /// Each entry of a map has its key as its id.
    Id,
    /// Packages and sources have the CPE of everything.
    PackageCpe,
    /// Every package has a source, and no source has one.
    Source,
    /// Every version contains a `-`.
    Version,
    /// A package has a name; one that is not UTF-8 stands beside its escape.
    Name,
    /// A hint is one escaped `repoid`.
    Hint,
    /// `introduced_in` is a digest.
    Layer,
    /// Packages and environments have the same keys, and every id that an environment names exists.
    Environment,
    /// The repositories of a package are those that its entry in the history allows.
    Origin,
    /// There is at most one distribution, and its CPE binds.
    Distribution,
    /// RHEL, Oracle Linux and the SLES family have a major version only.
    Major,
    /// os-release's own texts are sent only where they differ.
    Verbatim,
    /// Repositories are mapped ones, with a CPE that binds and is not that of everything.
    Repository,
    /// A repository has each CPE once.
    Unique,
    /// What has no CPE is in the field of ours.
    Unmapped,
}

/// Every rule that the report breaks, with the place.
pub fn violations(report: &IndexReport) -> Vec<(Rule, String)> {
    let mut broken = Broken::default();
    let finished = report.success && report.state == "IndexFinished" && report.err.is_empty();
    broken.unless(finished, Rule::Finished, &report.state);
    let hash = &report.hash_id;
    broken.unless(hash.is_empty() || is_digest(hash), Rule::Hash, hash);
    match &report.contents {
        Some(contents) => check_contents(contents, &mut broken),
        None => broken.unless(false, Rule::Finished, "no contents"),
    }
    broken.0
}

/// Panics with what is wrong with a report.
pub fn check(report: &IndexReport, what: &str) {
    let broken = violations(report);
    assert!(broken.is_empty(), "{what}: {broken:#?}");
}

#[derive(Default)]
struct Broken(Vec<(Rule, String)>);

impl Broken {
    fn unless(&mut self, holds: bool, rule: Rule, place: &str) {
        if !holds {
            self.0.push((rule, place.to_owned()));
        }
    }
}

fn check_contents(contents: &Contents, broken: &mut Broken) {
    for (key, package) in &contents.packages {
        broken.unless(package.id == *key, Rule::Id, key);
        check_package(package, broken);
    }
    let distributions: Vec<_> = contents.distributions.iter().collect();
    broken.unless(distributions.len() < 2, Rule::Distribution, "several");
    for (key, distribution) in distributions {
        broken.unless(distribution.id == *key, Rule::Id, key);
        check_distribution(distribution, broken);
    }
    let mut seen = BTreeSet::new();
    for (key, repository) in &contents.repositories {
        broken.unless(repository.id == *key, Rule::Id, key);
        check_repository(repository, broken);
        let is_new = seen.insert((&repository.uri, &repository.cpe));
        broken.unless(is_new, Rule::Unique, &repository.uri);
    }
    for (key, repository) in &contents.unmapped {
        broken.unless(repository.id == *key, Rule::Id, key);
        let is_plain = repository.cpe.is_empty() && repository.key.is_empty();
        let is_apart = !contents.repositories.contains_key(key);
        let is_named = !repository.name.is_empty();
        broken.unless(is_plain && is_apart && is_named, Rule::Unmapped, key);
    }
    let mut keys = contents.packages.keys();
    let same_keys = contents.packages.len() == contents.environments.len()
        && keys.all(|key| contents.environments.contains_key(key));
    broken.unless(same_keys, Rule::Environment, "keys");
    for (key, list) in &contents.environments {
        let one = list.environments.len() == 1;
        broken.unless(one, Rule::Environment, key);
        for environment in &list.environments {
            check_environment(key, environment, contents, broken);
        }
    }
}

fn check_package(package: &Package, broken: &mut Broken) {
    let name = &package.name;
    broken.unless(package.cpe == WILDCARD, Rule::PackageCpe, name);
    broken.unless(package.kind == "binary", Rule::PackageCpe, name);
    broken.unless(package.version.contains('-'), Rule::Version, name);
    let is_named = match std::str::from_utf8(&package.raw_name) {
        Ok("") => !name.is_empty(),
        // Text needs no escape.
        Ok(_) => false,
        Err(_) => *name == escaped(&package.raw_name),
    };
    broken.unless(is_named, Rule::Name, name);
    let hint = &package.repository_hint;
    broken.unless(hint.is_empty() || is_hint(hint), Rule::Hint, hint);
    let Some(source) = &package.source else {
        return broken.unless(false, Rule::Source, name);
    };
    broken.unless(source.source.is_none(), Rule::Source, name);
    broken.unless(source.cpe == WILDCARD, Rule::PackageCpe, name);
    let is_unknown = source.name.is_empty() && source.version.is_empty();
    let is_known = !source.name.is_empty() && source.version.contains('-');
    broken.unless(is_unknown || is_known, Rule::Source, name);
    broken.unless(source.kind == "source", Rule::Source, name);
}

fn check_environment(
    key: &str,
    environment: &Environment,
    contents: &Contents,
    broken: &mut Broken,
) {
    broken.unless(is_digest(&environment.introduced_in), Rule::Layer, key);
    let distribution = &environment.distribution_id;
    let is_known = distribution.is_empty() || contents.distributions.contains_key(distribution);
    broken.unless(is_known, Rule::Environment, key);
    let ids: BTreeSet<&String> = environment.repository_ids.iter().collect();
    let exist = ids.iter().all(|id| contents.repositories.contains_key(*id));
    let once = ids.len() == environment.repository_ids.len();
    broken.unless(exist && once, Rule::Environment, key);
    let Some(package) = contents.packages.get(key) else {
        return;
    };
    let same_database = environment.package_db == package.package_db;
    broken.unless(same_database, Rule::Environment, key);
    let hint = &package.repository_hint;
    let all: BTreeSet<&String> = contents.repositories.keys().collect();
    let own: BTreeSet<&String> = contents
        .repositories
        .iter()
        .filter(|(_, repository)| !hint.is_empty() && repository.uri == *hint)
        .map(|(id, _)| id)
        .collect();
    let holds = match environment.origin {
        // No entry: from any of them.
        1 => hint.is_empty() && ids == all,
        // An entry that no repository with a CPE has.
        2 => own.is_empty() && ids.is_empty(),
        // An entry that one has.
        3 => !own.is_empty() && ids == own,
        _ => false,
    };
    broken.unless(holds, Rule::Origin, key);
}

fn check_distribution(distribution: &Distribution, broken: &mut Broken) {
    let cpe = &distribution.cpe;
    broken.unless(cpe_syntax::check(cpe).is_ok(), Rule::Distribution, cpe);
    let (version, version_id) = (&distribution.version, &distribution.version_id);
    let own_version = distribution.version_verbatim.as_ref().unwrap_or(version);
    let own_id = distribution
        .version_id_verbatim
        .as_ref()
        .unwrap_or(version_id);
    let has_major_only = ["rhel", "ol", "sles", "sled", "sles_sap"];
    let text = [own_id, own_version]
        .into_iter()
        .find(|text| !text.is_empty());
    let major: String = match text {
        Some(text) if has_major_only.contains(&distribution.did.as_str()) => {
            text.chars().take_while(char::is_ascii_digit).collect()
        }
        _ => String::new(),
    };
    let holds = match major.is_empty() {
        true => version == own_version && version_id == own_id,
        false => *version == major && *version_id == major,
    };
    broken.unless(holds, Rule::Major, version);
    for (own, sent) in [
        (&distribution.version_verbatim, version),
        (&distribution.version_id_verbatim, version_id),
        (&distribution.cpe_verbatim, cpe),
    ] {
        broken.unless(own.as_ref() != Some(sent), Rule::Verbatim, sent);
    }
}

fn check_repository(repository: &Repository, broken: &mut Broken) {
    let cpe = &repository.cpe;
    let binds = cpe_syntax::check(cpe).is_ok() && cpe != WILDCARD;
    broken.unless(binds, Rule::Repository, cpe);
    let is_mapped = repository.key == "rhel-cpe-repository" && repository.name == *cpe;
    broken.unless(is_mapped, Rule::Repository, &repository.name);
    broken.unless(is_hint(&repository.uri), Rule::Repository, &repository.uri);
}

/// `sha256:` and 64 hex digits.
fn is_digest(text: &str) -> bool {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}

/// `repoid=` and a value that is escaped as in a URL; what needs no escape has none.
fn is_hint(text: &str) -> bool {
    let Some(value) = text.strip_prefix("repoid=") else {
        return false;
    };
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let mut rest = value.as_bytes();
    let mut decoded = Vec::new();
    loop {
        rest = match rest {
            [] => return !decoded.is_empty() && std::str::from_utf8(&decoded).is_ok(),
            [b'%', digits @ ..] if digits.len() >= 2 => {
                let hex = std::str::from_utf8(&digits[..2]).unwrap_or("");
                match u8::from_str_radix(hex, 16) {
                    Ok(byte) if !is_unreserved(byte) => decoded.push(byte),
                    _ => return false,
                }
                &digits[2..]
            }
            [byte, after @ ..] if is_unreserved(*byte) => {
                decoded.push(*byte);
                after
            }
            _ => return false,
        };
    }
}

/// Bytes as text: what is no UTF-8 as `\xhh`, a backslash twice.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text += &chunk.valid().replace('\\', "\\\\");
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

/// The repositories of each package, by its name, as `repoid`s.
pub fn repositories_of(contents: &Contents) -> BTreeMap<String, BTreeSet<String>> {
    let names = |ids: &[String]| {
        ids.iter()
            .map(|id| contents.repositories[id].uri["repoid=".len()..].to_owned())
            .collect()
    };
    contents
        .packages
        .iter()
        .map(|(key, package)| {
            let environment = &contents.environments[key].environments[0];
            (package.name.clone(), names(&environment.repository_ids))
        })
        .collect()
}
