//! Between a [`Report`] and Clair's index report, in both directions.
//!
//! Package ids are their places in the sorted list, so that equal reports have equal bytes. What
//! the index report has no field for (the version and context of a module, `nosrc`) does not
//! travel; the digest covers exactly what does.

use super::message as wire;
use crate::report::{Distribution, Evr, Facts, Package, Report, Repository};
use std::collections::{BTreeMap, BTreeSet};

/// The value of `state` in a finished index report.
const FINISHED: &str = "IndexFinished";

/// Why a peer's report is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The agent says that its scan failed.
    #[error("the agent's scan failed: {0}")]
    Unsuccessful(String),
    /// There is no package in it: never true of an RPM-based machine that answers.
    #[error("the report lists no packages")]
    Empty,
    /// A package has no name.
    #[error("package {id} has no name")]
    Nameless {
        /// Its id in the report.
        id: String,
    },
}

/// A report as a peer sent it, without the facts, which travel beside it.
pub type ForeignReport = wire::IndexReport;

/// The index report for a [normalized](Report::normalize) report.
pub fn report_to_wire(report: &Report) -> ForeignReport {
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

/// The report that a peer sent, normalized; `facts` are those content facts it sent beside it.
pub fn report_from_wire(index: ForeignReport, facts: Facts) -> Result<Report, ReportError> {
    if !index.success {
        return Err(ReportError::Unsuccessful(index.err));
    }
    let contents = index.contents.unwrap_or_default();
    let package_db = contents
        .packages
        .values()
        .map(|p| p.package_db.as_str())
        .find(|db| !db.is_empty())
        .unwrap_or_default()
        .to_owned();
    let mut packages = Vec::with_capacity(contents.packages.len());
    for (id, package) in contents.packages {
        if package.name.is_empty() {
            return Err(ReportError::Nameless { id });
        }
        packages.push(package_from_wire(package));
    }
    if packages.is_empty() {
        return Err(ReportError::Empty);
    }
    let mut report = Report {
        packages,
        distribution: contents
            .distributions
            .into_values()
            .next()
            .map(distribution_from_wire)
            .unwrap_or_default(),
        repositories: contents
            .repositories
            .into_values()
            .map(repository_from_wire)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        package_db,
        facts,
    };
    report.normalize();
    Ok(report)
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

fn package_from_wire(package: wire::Package) -> Package {
    let source_rpm = package
        .source
        .filter(|source| !source.name.is_empty())
        .map(|source| format!("{}-{}.src.rpm", source.name, source.version));
    Package {
        name: package.name,
        evr: Evr::parse(&package.version),
        arch: some(package.arch),
        source_rpm,
        modularity_label: some(package.module),
        repo: repo_in_hint(&package.repository_hint),
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

fn distribution_from_wire(d: wire::Distribution) -> Distribution {
    Distribution {
        id: d.did,
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

fn repository_from_wire(r: wire::Repository) -> Repository {
    Repository {
        id: r.name,
        key: r.key,
        uri: r.uri,
        cpe: r.cpe,
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

/// The `repoid` of a hint in the form of a URL query, in any place.
fn repo_in_hint(hint: &str) -> Option<String> {
    let value = hint
        .split('&')
        .find_map(|pair| pair.strip_prefix("repoid="))?;
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
    some(String::from_utf8_lossy(&bytes).into_owned())
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_report_arrives_as_it_left() {
        let report = sample();
        let arrived = report_from_wire(report_to_wire(&report), report.facts.clone()).unwrap();
        assert_eq!(arrived.digest(), report.digest());
        let nodejs = arrived
            .packages
            .iter()
            .find(|p| p.name == "nodejs")
            .unwrap();
        assert_eq!(nodejs.repo.as_deref(), Some("base os/9"));
        assert_eq!(nodejs.module(), Some("nodejs:18"));
    }

    #[test]
    fn a_report_without_packages_is_refused() {
        let mut index = report_to_wire(&sample());
        index.contents.as_mut().unwrap().packages.clear();
        assert_eq!(
            report_from_wire(index, Facts::new()),
            Err(ReportError::Empty)
        );
    }

    #[test]
    fn a_failed_scan_says_why() {
        let mut index = report_to_wire(&sample());
        (index.success, index.err) = (false, "no rpmdb".into());
        let refused = report_from_wire(index, Facts::new());
        assert_eq!(refused, Err(ReportError::Unsuccessful("no rpmdb".into())));
    }

    proptest! {
        #[test]
        fn a_repository_id_survives_its_hint(repo in ".{1,30}") {
            prop_assert_eq!(repo_in_hint(&hint_of(&repo)), Some(repo));
        }

        #[test]
        fn no_hint_makes_it_panic(hint in ".{0,40}") {
            let _ = repo_in_hint(&hint);
        }
    }

    fn sample() -> Report {
        let mut report = Report {
            packages: vec![
                Package {
                    name: "nodejs".into(),
                    evr: Evr::parse("1:18.20.4-1.el9"),
                    arch: Some("x86_64".into()),
                    source_rpm: Some("nodejs-18.20.4-1.el9.src.rpm".into()),
                    modularity_label: Some("nodejs:18".into()),
                    repo: Some("base os/9".into()),
                },
                Package {
                    name: "bash".into(),
                    evr: Evr::parse("5.1.8-6.el9"),
                    ..Package::default()
                },
            ],
            distribution: Distribution {
                id: "rhel".into(),
                version_id: "9.4".into(),
                ..Distribution::default()
            },
            repositories: vec![Repository {
                id: "base os/9".into(),
                ..Repository::default()
            }],
            package_db: "sqlite:var/lib/rpm".into(),
            facts: Facts::from([("detected_os".into(), "RHEL".into())]),
        };
        report.normalize();
        report
    }
}
