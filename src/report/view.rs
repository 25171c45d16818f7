//! A report in the form in which it travels, borrowed from wherever it is.
//!
//! The sensor takes in ten thousand reports of thousands of strings: it reads, checks, digests and
//! passes them on without a copy of each. A [`Report`] of our own looks the same through
//! [`PackageView::of`], so there is one digest and one document for both.

use super::package::{module_in, repository_in};
use super::{
    Digest, Distribution, Evr, Facts, Origin, Package, Report, Repository, SourcePackage, digest,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cmp::Ordering;

/// A package in the form in which it travels; texts are [escaped](super::escape).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageView<'a> {
    /// Name without version.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// `[epoch:]version-release`, as [`Evr`] writes it.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// Empty when absent.
    pub arch: &'a str,
    /// The package it was built from, when known.
    #[serde(borrow)]
    pub source: Option<SourcePackage<'a>>,
    /// `name:stream`; empty when absent.
    pub module: &'a str,
    /// Who built it; empty when not known.
    pub vendor: &'a str,
    /// As the header has it; empty when not known.
    pub license: &'a str,
    /// Whether the package manager's history has an entry for it.
    pub is_recorded: bool,
    /// Id of the repository in that entry; empty when not known.
    #[serde(borrow)]
    pub repo: Cow<'a, str>,
}

/// A report in the form in which it travels: its packages and repositories are sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportView<'a> {
    /// Installed packages.
    #[serde(borrow)]
    pub packages: Vec<PackageView<'a>>,
    /// From os-release.
    pub distribution: Distribution,
    /// Repositories that packages came from.
    pub repositories: Vec<Repository>,
    /// Backend and directory, for example `sqlite:var/lib/rpm`.
    pub package_db: &'a str,
    /// Facts about the guest that count as content.
    pub facts: Facts,
}

impl<'a> PackageView<'a> {
    /// A package as it travels: of its module only name and stream do, of its source rpm only name
    /// and version.
    pub fn of(package: &'a Package) -> Self {
        Self {
            name: Cow::Borrowed(&package.name),
            version: Self::version_of_evr(&package.evr),
            arch: package.arch.as_deref().unwrap_or_default(),
            source: package.source(),
            module: package.module().unwrap_or_default(),
            vendor: package.vendor.as_deref().unwrap_or_default(),
            license: package.license.as_deref().unwrap_or_default(),
            is_recorded: package.origin.is_recorded(),
            repo: Cow::Borrowed(package.origin.id()),
        }
    }

    /// A version that holds a `:` reads as another once it is text: that other is what travels.
    fn version_of_evr(evr: &Evr) -> Cow<'a, str> {
        let text = evr.to_string();
        match Evr::canonical(&text) {
            Cow::Owned(canonical) => Cow::Owned(canonical),
            Cow::Borrowed(_) => Cow::Owned(text),
        }
    }

    /// With the version in the form in which it is digested, whoever sent it.
    pub fn version_of(text: &'a str) -> Cow<'a, str> {
        Evr::canonical(text)
    }

    /// The part of a module's label that travels: `name:stream`.
    pub fn module_of(label: &str) -> &str {
        module_in(label)
    }

    /// The repository that people are shown; empty where there is none or a local origin.
    pub fn repository(&self) -> &str {
        repository_in(&self.repo)
    }

    /// The package of which this is a view, as far as it travelled.
    fn to_package(&self) -> Package {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let file = |s: &SourcePackage<'_>| format!("{}-{}.src.rpm", s.name, s.version);
        Package {
            name: self.name.clone().into_owned(),
            evr: Evr::parse(&self.version),
            arch: some(self.arch),
            source_rpm: self.source.as_ref().map(file),
            modularity_label: some(self.module),
            vendor: some(self.vendor),
            license: some(self.license),
            origin: match self.is_recorded {
                true => Origin::recorded(&self.repo),
                false => Origin::Unrecorded,
            },
        }
    }

    /// The order of [`Report::normalize`].
    fn order(&self, other: &Self) -> Ordering {
        let source = |package: &Self| {
            package
                .source
                .map(|s| format!("{}-{}.src.rpm", s.name, s.version))
        };
        // Names are seldom equal, and all but the version hardly ever.
        self.name
            .cmp(&other.name)
            .then_with(|| Evr::split(&self.version).cmp(&Evr::split(&other.version)))
            .then_with(|| self.arch.cmp(other.arch))
            .then_with(|| source(self).cmp(&source(other)))
            .then_with(|| self.module.cmp(other.module))
            .then_with(|| self.vendor.cmp(other.vendor))
            .then_with(|| self.license.cmp(other.license))
            .then_with(|| self.is_recorded.cmp(&other.is_recorded))
            .then_with(|| self.repo.cmp(&other.repo))
    }
}

impl Report {
    /// This report in the form in which it travels.
    pub fn view(&self) -> ReportView<'_> {
        ReportView {
            packages: self.packages.iter().map(PackageView::of).collect(),
            distribution: self.distribution.clone(),
            repositories: self.repositories.clone(),
            package_db: &self.package_db,
            facts: self.facts.clone(),
        }
    }
}

impl ReportView<'_> {
    /// Sorts packages and repositories, of which each is listed once: the canonical order in which a
    /// report is digested.
    pub fn normalize(&mut self) {
        self.packages.sort_by(PackageView::order);
        self.repositories.sort();
        self.repositories.dedup();
    }

    /// SHA-256 over the canonical content, that of the [`Report`] it is a view of.
    pub fn digest(&self) -> Digest {
        digest::of_view(self)
    }

    /// A copy that stands alone.
    pub fn to_report(&self) -> Report {
        Report {
            packages: self.packages.iter().map(PackageView::to_package).collect(),
            distribution: self.distribution.clone(),
            repositories: self.repositories.clone(),
            package_db: self.package_db.to_owned(),
            facts: self.facts.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Otherwise agent and sensor would never agree that nothing changed.
        #[test]
        fn a_view_has_the_order_and_the_digest_of_its_report(packages in proptest::collection::vec(package(), 0..8)) {
            let mut report = Report { packages, ..Report::default() };
            let report_before = report.clone();
            let mut view = report_before.view();
            view.normalize();
            prop_assert_eq!(view.to_report().digest(), view.digest());
            let copy = view.to_report();
            report.normalize();
            prop_assert_eq!(&copy.packages, &report.packages);
            prop_assert_eq!(report.digest(), view.digest());
        }
    }

    /// Many that differ in one field only.
    fn package() -> impl Strategy<Value = Package> {
        let texts = ("[ab]", "[0-2:]{0,2}[.+~a1]{1,2}(-[.+1]{1,2})?");
        let options = (
            "[xy]?",
            "([st]-1-[12])?",
            "(m:[12])?",
            "[vw]?",
            "[vw]?",
            "[@rs]?",
        );
        (texts, options, any::<bool>()).prop_map(|((name, version), options, is_recorded)| {
            let (arch, source, module, vendor, license, repo) = options;
            let some = |text: String| (!text.is_empty()).then_some(text);
            Package {
                name,
                evr: Evr::parse(&version),
                arch: some(arch),
                source_rpm: some(source).map(|s| format!("{s}.src.rpm")),
                modularity_label: some(module),
                vendor: some(vendor),
                license: some(license),
                origin: match is_recorded {
                    true => Origin::recorded(&repo),
                    false => Origin::Unrecorded,
                },
            }
        })
    }
}
