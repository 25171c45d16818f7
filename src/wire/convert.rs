//! From a [`Report`] to Clair's index report; [`super::response`] goes the other way.
//!
//! Package ids are their places in the sorted list, so that equal reports have equal bytes. What
//! the index report has no field for (the version and context of a module, `nosrc`) does not
//! travel; the digest covers exactly what does.

use super::message as wire;
use crate::report::{Distribution, Package, Report, Repository};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The value of `state` in a finished index report.
const FINISHED: &str = "IndexFinished";

/// The index report for a [normalized](Report::normalize) report.
pub fn report_to_wire(report: &Report) -> wire::IndexReport {
    let mut contents = wire::Contents::default();
    let distribution_id = "1".to_owned();
    contents.distributions.insert(
        distribution_id.clone(),
        distribution_to_wire(&distribution_id, &report.distribution),
    );
    let mut ids_of = BTreeMap::<&str, Vec<String>>::new();
    for (n, repository) in report.repositories.iter().enumerate() {
        let id = (n + 1).to_string();
        ids_of.entry(&repository.id).or_default().push(id.clone());
        contents
            .repositories
            .insert(id.clone(), repository_to_wire(&id, repository));
    }
    for (n, package) in report.packages.iter().enumerate() {
        let id = (n + 1).to_string();
        let repository_ids = package
            .repo
            .as_deref()
            .and_then(|repo| ids_of.get(repo))
            .cloned()
            .unwrap_or_default();
        contents.environments.insert(
            id.clone(),
            wire::EnvironmentList {
                environments: vec![wire::Environment {
                    package_db: report.package_db.clone(),
                    introduced_in: String::new(),
                    distribution_id: distribution_id.clone(),
                    repository_ids,
                }],
            },
        );
        contents.packages.insert(
            id.clone(),
            package_to_wire(&id, package, &report.package_db),
        );
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
    let arch = package.arch.clone().unwrap_or_default();
    wire::Package {
        id: id.to_owned(),
        name: package.name.clone(),
        version: package.evr.to_string(),
        kind: "binary".into(),
        source: package.source().map(|source| {
            Box::new(wire::Package {
                name: source.name.to_owned(),
                version: source.version.to_owned(),
                kind: "source".into(),
                ..wire::Package::default()
            })
        }),
        package_db: package_db.to_owned(),
        repository_hint: package.repo.as_deref().map(hint_of).unwrap_or_default(),
        module: package.module().unwrap_or_default().to_owned(),
        arch,
        cpe: String::new(),
    }
}

fn distribution_to_wire(id: &str, d: &Distribution) -> wire::Distribution {
    let d = d.clone();
    wire::Distribution {
        id: id.to_owned(),
        did: d.id,
        name: d.name,
        version: d.version,
        version_code_name: d.version_code_name,
        version_id: d.version_id,
        arch: d.arch,
        cpe: d.cpe,
        pretty_name: d.pretty_name,
    }
}

/// `id` only links entries within one message; the repository's own id travels as its name.
fn repository_to_wire(id: &str, r: &Repository) -> wire::Repository {
    wire::Repository {
        id: id.to_owned(),
        name: r.id.clone(),
        key: r.key.clone(),
        uri: r.uri.clone(),
        cpe: r.cpe.clone(),
    }
}

/// `repoid=...`, in the form of a URL query.
fn hint_of(repo: &str) -> String {
    let mut hint = String::from("repoid=");
    for byte in repo.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            hint.push(char::from(byte));
        } else {
            hint.push_str(&format!("%{byte:02X}"));
        }
    }
    hint
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
