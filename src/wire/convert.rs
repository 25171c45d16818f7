//! From a [`Report`] to Clair's index report, and back field by field; [`super::response`] reads the
//! message around it.
//!
//! StackRox's Scanner V4 refuses a whole report for one empty or malformed CPE or digest, and its
//! matcher takes a repository with a CPE for one whose packages are known (`docs/stackrox.md`). So:
//!
//! - every package and every source has the wildcard CPE, every environment a digest, every package a
//!   source, every version a `-`;
//! - `repositories` holds only those with a CPE, the others travel in a field of ours;
//! - a package without an entry in the history may be from any of them, one with an entry is from the
//!   repository of its entry or from none;
//! - version and CPE of the distribution are as Clair's own scanners have them; os-release's own texts
//!   travel beside them where they differ.
//!
//! Package ids are their places in the sorted list, so that equal reports have equal bytes. What
//! the index report has no field for (the version and context of a module, `nosrc`) does not
//! travel; the digest covers exactly what does.

use super::message as wire;
use crate::percent;
use crate::report::cpe::{self, Cpe};
use crate::report::escape::unescape;
use crate::report::{ABSENT, Distribution, Evr, Package, PackageView, Report, Repository};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The value of `state` in a finished index report.
const FINISHED: &str = "IndexFinished";

/// A digest for `introduced_in`: packages of a machine are in no container layer. The value is that of
/// StackRox's own agent.
const NO_LAYER: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What marks a repository whose CPE is from Red Hat's mapping; Clair's name for it.
pub const MAPPED_KEY: &str = "rhel-cpe-repository";

/// The index report for a [normalized](Report::normalize) report.
pub fn report_to_wire(report: &Report) -> wire::IndexReport {
    let mut contents = wire::Contents::default();
    let distribution_id = match has_os_release(&report.distribution) {
        true => "1",
        false => "",
    };
    if !distribution_id.is_empty() {
        contents.distributions.insert(
            distribution_id.to_owned(),
            distribution_to_wire(distribution_id, &report.distribution),
        );
    }
    let mut ids_of = BTreeMap::<&str, Vec<String>>::new();
    for (n, repository) in report.repositories.iter().enumerate() {
        let id = (n + 1).to_string();
        let sent = repository_to_wire(&id, repository);
        if sent.cpe.is_empty() {
            contents.unmapped.insert(id, sent);
        } else {
            ids_of.entry(&repository.id).or_default().push(id.clone());
            contents.repositories.insert(id, sent);
        }
    }
    for (n, package) in report.packages.iter().enumerate() {
        let id = (n + 1).to_string();
        let mapped = ids_of.get(package.origin.id());
        let (origin, repository_ids) = match (package.origin.is_recorded(), mapped) {
            (false, _) => (
                wire::Origin::NoEntry,
                contents.repositories.keys().cloned().collect(),
            ),
            (true, Some(ids)) => (wire::Origin::Mapped, ids.clone()),
            (true, None) => (wire::Origin::Unmapped, Vec::new()),
        };
        let environment = wire::Environment {
            package_db: report.package_db.clone(),
            introduced_in: NO_LAYER.into(),
            distribution_id: distribution_id.to_owned(),
            repository_ids,
            origin: origin.into(),
        };
        let environments = vec![environment];
        contents
            .environments
            .insert(id.clone(), wire::EnvironmentList { environments });
        let package = package_to_wire(&id, package, &report.package_db);
        contents.packages.insert(id, package);
    }
    wire::IndexReport {
        hash_id: report.digest().to_string(),
        state: FINISHED.into(),
        success: true,
        err: String::new(),
        contents: Some(contents),
    }
}

fn package_to_wire(id: &str, package: &Package, package_db: &str) -> wire::Package {
    let view = PackageView::of(package);
    let source = view.source.unwrap_or_default();
    // Text for whoever reads UTF-8 only; the bytes beside it where the name has others.
    let (name, raw_name) = match unescape(&view.name) {
        Cow::Borrowed(_) => (view.name.to_string(), Vec::new()),
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(name) => (name, Vec::new()),
            Err(error) => (view.name.to_string(), error.into_bytes()),
        },
    };
    wire::Package {
        id: id.to_owned(),
        name,
        version: with_release(package, view.version),
        kind: "binary".into(),
        source: Some(Box::new(wire::Package {
            name: source.name.to_owned(),
            version: source.version.to_owned(),
            kind: "source".into(),
            cpe: cpe::WILDCARD.into(),
            ..wire::Package::default()
        })),
        package_db: package_db.to_owned(),
        repository_hint: match view.repo.as_ref() {
            "" => String::new(),
            id => hint_of(id),
        },
        module: view.module.to_owned(),
        arch: view.arch.to_owned(),
        cpe: cpe::WILDCARD.into(),
        vendor: view.vendor.to_owned(),
        license: view.license.to_owned(),
        raw_name,
    }
}

/// A header without RELEASE is sent with release `0`: a matcher fails at a version without `-`.
fn with_release(package: &Package, version: Cow<'_, str>) -> String {
    match package.evr.release.as_str() {
        "" => format!("{version}-0"),
        ABSENT => {
            let release = "0".to_owned();
            Evr {
                release,
                ..package.evr.clone()
            }
            .to_string()
        }
        _ => version.into_owned(),
    }
}

/// Whether anything but the architecture is known of the distribution.
fn has_os_release(d: &Distribution) -> bool {
    let Distribution { arch, .. } = d;
    *d != Distribution {
        arch: arch.clone(),
        ..Distribution::default()
    }
}

fn distribution_to_wire(id: &str, d: &Distribution) -> wire::Distribution {
    let (version, version_id) = match major_of(d) {
        Some(major) => (major, major),
        None => (d.version.as_str(), d.version_id.as_str()),
    };
    let cpe = match d.cpe.parse::<Cpe>() {
        Ok(cpe) => cpe.to_string(),
        Err(_) => cpe::WILDCARD.to_owned(),
    };
    let verbatim = |text: &str, sent: &str| (text != sent).then(|| text.to_owned());
    wire::Distribution {
        id: id.to_owned(),
        did: d.id.clone(),
        name: d.name.clone(),
        version: version.to_owned(),
        version_code_name: d.version_code_name.clone(),
        version_id: version_id.to_owned(),
        arch: d.arch.clone(),
        pretty_name: d.pretty_name.clone(),
        version_verbatim: verbatim(&d.version, version),
        version_id_verbatim: verbatim(&d.version_id, version_id),
        cpe_verbatim: verbatim(&d.cpe, &cpe),
        cpe,
    }
}

/// The version that Clair's scanners give a distribution whose advisories are for a major version: the
/// number that `VERSION_ID`, or without one `VERSION`, begins with.
fn major_of(d: &Distribution) -> Option<&str> {
    const BY_MAJOR: [&str; 5] = ["rhel", "ol", "sles", "sled", "sles_sap"];
    let text = match d.version_id.as_str() {
        "" => &d.version,
        text => text,
    };
    let major = text.split(|c: char| !c.is_ascii_digit()).next()?;
    (BY_MAJOR.contains(&d.id.as_str()) && !major.is_empty()).then_some(major)
}

/// What [`distribution_to_wire`] was made from, as far as it was sent.
pub(super) fn distribution_from_wire(d: wire::Distribution) -> Distribution {
    Distribution {
        id: d.did,
        name: d.name,
        version: d.version_verbatim.unwrap_or(d.version),
        version_code_name: d.version_code_name,
        version_id: d.version_id_verbatim.unwrap_or(d.version_id),
        arch: d.arch,
        cpe: d.cpe_verbatim.unwrap_or(d.cpe),
        pretty_name: d.pretty_name,
    }
}

/// `id` only links entries within one message. A repository with a CPE is named by it, as Clair does; a
/// CPE that is none is left out. Version 0.1 kept CPEs as the mapping has them, and no `uri`.
fn repository_to_wire(id: &str, r: &Repository) -> wire::Repository {
    match r.cpe.parse::<Cpe>() {
        Ok(cpe) => wire::Repository {
            id: id.to_owned(),
            name: cpe.to_string(),
            key: r.key.clone(),
            uri: match r.uri.is_empty() {
                true => hint_of(&r.id),
                false => r.uri.clone(),
            },
            cpe: cpe.to_string(),
        },
        Err(_) => wire::Repository {
            id: id.to_owned(),
            name: r.id.clone(),
            uri: r.uri.clone(),
            ..wire::Repository::default()
        },
    }
}

/// The repository's own id is the `repoid` of `uri`, where there is one.
pub(super) fn repository_from_wire(r: wire::Repository) -> Repository {
    let id = repo_in_hint(&r.uri).map(Cow::into_owned);
    Repository {
        id: id.unwrap_or(r.name),
        key: r.key,
        uri: r.uri,
        cpe: r.cpe,
    }
}

/// `repoid=...`, in the form of a URL query.
pub fn hint_of(repo: &str) -> String {
    format!("repoid={}", percent::encode(repo))
}

/// The `repoid` of a hint in the form of a URL query, in any place; copied only where it is escaped.
pub(super) fn repo_in_hint(hint: &str) -> Option<Cow<'_, str>> {
    let value = hint
        .split('&')
        .find_map(|pair| pair.strip_prefix("repoid="))?;
    if !value.contains(['+', '%']) {
        return Some(Cow::Borrowed(value));
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    Some(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_repository_id_survives_its_hint(repo in ".{1,30}") {
            let hint = hint_of(&repo);
            prop_assert_eq!(repo_in_hint(&hint), Some(Cow::Owned(repo)));
        }

        #[test]
        fn no_hint_makes_it_panic(hint in ".{0,40}") {
            let _ = repo_in_hint(&hint);
        }
    }
}
