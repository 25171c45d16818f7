//! Version 1 of rows that have a newer one: what afferent 0.1 wrote. Only read, never changed.
//!
//! Values that are a field of several rows (keys, digests, times, facts) have one encoding in every
//! version and are not repeated here.

use crate::clock::WallTime;
use crate::report::{
    self, Digest, Distribution, Evr, Facts, Origin, ReportKey, Repository, Trigger,
};
use serde::Deserialize;
use std::borrow::Cow;

/// What was kept of an agent's newest report beside its content.
#[derive(Deserialize)]
pub(super) struct ReportRow {
    key: ReportKey,
    digest: Digest,
    trigger: Trigger,
    generated_at: WallTime,
}

/// The content of an agent's newest report.
#[derive(Deserialize)]
pub(super) struct Report {
    packages: Vec<Package>,
    distribution: Distribution,
    repositories: Vec<Repository>,
    package_db: String,
    facts: Facts,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    evr: Evr,
    arch: Option<String>,
    source_rpm: Option<String>,
    modularity_label: Option<String>,
    repo: Option<String>,
}

impl From<ReportRow> for super::ReportRow {
    fn from(row: ReportRow) -> Self {
        Self {
            key: row.key,
            digest: row.digest,
            digest_form: 1,
            trigger: row.trigger,
            generated_at: row.generated_at,
            scan_facts: Facts::new(),
            mapping: None,
        }
    }
}

impl From<Report> for report::Report {
    fn from(report: Report) -> Self {
        Self {
            packages: report.packages.into_iter().map(Into::into).collect(),
            distribution: report.distribution,
            repositories: report.repositories,
            package_db: report.package_db,
            facts: report.facts,
        }
    }
}

impl From<Package> for report::Package {
    fn from(package: Package) -> Self {
        let escaped = |text: String| match report::escape::escape_text(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(escaped) => escaped,
        };
        Self {
            name: escaped(package.name),
            evr: package.evr,
            arch: package.arch,
            source_rpm: package.source_rpm,
            modularity_label: package.modularity_label,
            vendor: None,
            license: None,
            origin: package.repo.map_or(Origin::Unrecorded, Origin::Repository),
        }
    }
}
