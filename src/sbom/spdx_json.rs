//! SPDX 2.3, JSON.
//!
//! Trivy takes the package for the operating system whose SPDXID begins with `SPDXRef-OperatingSystem`, and
//! source packages from `sourceInfo`; content sets and the module from annotations. Grype reads the package URLs
//! alone. That a package is known to be of no module cannot be said here.

use super::distro::DistroNames;
use super::license::License;
use super::text::{readable, some_readable, url};
use super::{Entry, Subject, TOOL, TOOL_VERSION, Unique, purl, seconds};
use crate::report::cpe::Cpe;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const NONE_SAID: &str = "NOASSERTION";
/// Where SPDX documents that are nowhere else have their names.
const NAMESPACE: &str = "https://spdx.org/spdxdocs/afferent";

type Text<'a> = Cow<'a, str>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: Text<'a>,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<SpdxPackage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<ExtractedLicense>,
    relationships: Vec<Relationship<'a>>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: [String; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage<'a> {
    #[serde(rename = "SPDXID")]
    id: String,
    name: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: Text<'a>,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    built_date: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef<'a> {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Annotation<'a> {
    annotation_date: &'a str,
    annotation_type: &'static str,
    annotator: &'a str,
    comment: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtractedLicense {
    license_id: String,
    extracted_text: String,
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship<'a> {
    spdx_element_id: &'a str,
    relationship_type: &'static str,
    related_spdx_element: &'a str,
}

pub(super) fn document(subject: &Subject<'_>) -> Vec<u8> {
    let names = DistroNames::of(&subject.report.distribution);
    let entries = subject.entries(&names);
    let created = seconds(subject.at.unix_ms() / 1000);
    let tool = format!("Tool: {TOOL}-{TOOL_VERSION}");
    let mut ids = Unique::default();
    ids.take(DOCUMENT.to_owned(), '-');
    let system = ids.take(
        format!("SPDXRef-OperatingSystem-{}", folded(&readable(names.id()))),
        '-',
    );
    let mut extracted = Extracted::default();
    let mut packages = Vec::with_capacity(1 + entries.len());
    packages.push(operating_system(subject, &names, system.clone()));
    for entry in &entries {
        let arch = entry.package.arch.as_deref().unwrap_or_default();
        let nevra = format!("{}-{}.{}", entry.name, entry.version, readable(arch));
        let id = ids.take(format!("SPDXRef-Package-{}", folded(&nevra)), '-');
        packages.push(package(entry, id, &created, &tool, &mut extracted));
    }
    let ids: Vec<String> = packages.iter().map(|package| package.id.clone()).collect();
    let mut relationships = vec![Relationship {
        spdx_element_id: DOCUMENT,
        relationship_type: "DESCRIBES",
        related_spdx_element: &system,
    }];
    relationships.extend(ids.iter().skip(1).map(|id| Relationship {
        spdx_element_id: &system,
        relationship_type: "CONTAINS",
        related_spdx_element: id,
    }));
    let document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: subject.host(),
        document_namespace: format!("{NAMESPACE}-{}", subject.serial()),
        creation_info: CreationInfo {
            created: created.clone(),
            creators: [tool.clone()],
        },
        packages,
        has_extracted_licensing_infos: extracted.infos(),
        relationships,
    };
    // There is no map with other keys than text, and a Vec takes everything.
    serde_json::to_vec(&document).unwrap_or_default()
}

fn operating_system<'a>(
    subject: &Subject<'a>,
    names: &DistroNames<'a>,
    id: String,
) -> SpdxPackage<'a> {
    let distribution = &subject.report.distribution;
    let cpe = distribution.cpe.parse::<Cpe>().ok();
    SpdxPackage {
        name: readable(names.family()),
        version_info: Some(readable(names.version_id())).filter(|version| !version.is_empty()),
        license_declared: NONE_SAID.into(),
        summary: Some(readable(&distribution.pretty_name)).filter(|name| !name.is_empty()),
        primary_package_purpose: Some("OPERATING-SYSTEM"),
        external_refs: cpe
            .map(|cpe| ExternalRef {
                reference_category: "SECURITY",
                reference_type: "cpe23Type",
                reference_locator: Cow::Owned(cpe.to_string()),
            })
            .into_iter()
            .collect(),
        ..SpdxPackage::bare(id)
    }
}

impl SpdxPackage<'_> {
    /// With nothing said but what has to be.
    fn bare(id: String) -> Self {
        Self {
            id,
            name: Cow::Borrowed(""),
            version_info: None,
            supplier: None,
            download_location: NONE_SAID,
            files_analyzed: false,
            homepage: None,
            source_info: None,
            license_concluded: NONE_SAID,
            license_declared: NONE_SAID.into(),
            copyright_text: NONE_SAID,
            summary: None,
            comment: None,
            primary_package_purpose: None,
            built_date: None,
            external_refs: Vec::new(),
            annotations: Vec::new(),
        }
    }
}

fn package<'a>(
    entry: &'a Entry<'_>,
    id: String,
    created: &'a str,
    tool: &'a str,
    extracted: &mut Extracted,
) -> SpdxPackage<'a> {
    let details = entry.details;
    let annotation = |comment| Annotation {
        annotation_date: created,
        annotation_type: "OTHER",
        annotator: tool,
        comment,
    };
    let sets = entry.content_sets.iter();
    let sets = sets.map(|set| format!("ContentSet: {}", readable(set)));
    let module = purl::module_label(entry.package);
    let module = module.map(|label| format!("Modularitylabel: {label}"));
    let vendor = some_readable(entry.package.vendor.as_ref());
    SpdxPackage {
        name: Cow::Borrowed(&entry.name),
        version_info: Some(Cow::Borrowed(&entry.version)),
        supplier: vendor.and_then(|vendor| organization(&vendor)),
        homepage: details.and_then(|details| url(details.url.as_deref()?)),
        source_info: source_info(entry),
        license_declared: match &entry.license {
            Some(License::Id(text) | License::Expression(text)) => Cow::Borrowed(*text),
            Some(License::Text(text)) => Cow::Owned(extracted.reference(text)),
            None => NONE_SAID.into(),
        },
        summary: details.and_then(|details| some_readable(details.summary.as_ref())),
        comment: comment(entry),
        built_date: details
            .and_then(|d| d.built_at)
            .map(|time| seconds(time.into())),
        external_refs: vec![ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: Cow::Borrowed(&entry.purl),
        }],
        annotations: module.into_iter().chain(sets).map(annotation).collect(),
        ..SpdxPackage::bare(id)
    }
}

/// An organization; what stands in parentheses would be its address.
fn organization(name: &str) -> Option<String> {
    let name = name.trim().replace('(', "[").replace(')', "]");
    (!name.is_empty()).then(|| format!("Organization: {name}"))
}

/// The source package in Trivy's words, with the epoch of the package.
fn source_info(entry: &Entry<'_>) -> Option<String> {
    let source = entry.package.source()?;
    let epoch = match entry.package.evr.epoch {
        0 => String::new(),
        epoch => format!("{epoch}:"),
    };
    let (name, version) = (readable(source.name), readable(source.version));
    Some(format!("built package from: {name} {epoch}{version}"))
}

/// What there is no field for.
fn comment(entry: &Entry<'_>) -> Option<String> {
    let packager = entry.packager();
    let packager = packager.map(|packager| format!("Packager: {packager}"));
    let installed = entry.details.and_then(|details| details.installed_at);
    let installed = installed.map(|time| format!("Installed: {}", seconds(time.into())));
    let said: Vec<String> = packager.into_iter().chain(installed).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// Letters, digits, `.` and `-`, as an SPDX identifier may have them; all others become `-`.
fn folded(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    text.chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect()
}

/// Licences in the packager's own words, each with a reference.
#[derive(Default)]
struct Extracted {
    references: Unique,
    /// Text to reference.
    texts: BTreeMap<String, String>,
}

impl Extracted {
    fn reference(&mut self, text: &str) -> String {
        if let Some(reference) = self.texts.get(text) {
            return reference.clone();
        }
        let reference = self
            .references
            .take(format!("LicenseRef-{}", folded(text)), '-');
        self.texts.insert(text.to_owned(), reference.clone());
        reference
    }

    fn infos(self) -> Vec<ExtractedLicense> {
        let texts = self.texts.into_iter();
        texts
            .map(|(text, license_id)| ExtractedLicense {
                license_id,
                extracted_text: text.clone(),
                name: text,
            })
            .collect()
    }
}
