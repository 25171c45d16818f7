//! CycloneDX 1.6, JSON.
//!
//! The machine is of type `platform`: Trivy refuses a whole document about a `device`, and takes a second
//! `operating-system` for the system that the packages are of. `group` is never set, since Trivy would make
//! it part of the name. Properties beginning with `syft:` are read by Grype, those with `aquasecurity:trivy:` by
//! Trivy.

use super::distro::DistroNames;
use super::license::License;
use super::text::{readable, some_readable, url};
use super::{Entry, Subject, TOOL, TOOL_VERSION, Unique, purl, seconds};
use crate::report::Package;
use crate::report::cpe::Cpe;
use serde::Serialize;
use std::borrow::Cow;

type Text<'a> = Cow<'a, str>;

/// The order of the first fields matters: old versions of Dependency-Track look no further.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bom<'a> {
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Component<'a>>,
    dependencies: Vec<Dependency<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: String,
    tools: Tools,
    component: Component<'a>,
}

#[derive(Serialize)]
struct Tools {
    components: [Tool; 1],
}

#[derive(Serialize)]
struct Tool {
    r#type: &'static str,
    name: &'static str,
    version: &'static str,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component<'a> {
    r#type: &'static str,
    #[serde(rename = "bom-ref")]
    bom_ref: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<Text<'a>>,
    name: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    licenses: Option<[LicenseChoice<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swid: Option<Swid<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_references: Option<[ExternalReference<'a>; 1]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum LicenseChoice<'a> {
    License(LicenseName<'a>),
    Expression(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum LicenseName<'a> {
    Id(&'a str),
    Name(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Swid<'a> {
    tag_id: Text<'a>,
    name: Text<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: Text<'a>,
}

#[derive(Serialize)]
struct ExternalReference<'a> {
    r#type: &'static str,
    url: &'a str,
}

#[derive(Serialize)]
struct Property<'a> {
    name: &'static str,
    value: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency<'a> {
    r#ref: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<&'a str>,
}

pub(super) fn document(subject: &Subject<'_>) -> Vec<u8> {
    let names = DistroNames::of(&subject.report.distribution);
    let entries = subject.entries(&names);
    let mut unique = Unique::default();
    let host = unique.take(format!("host:{}", subject.host()), '#');
    let system = unique.take(format!("os:{}", readable(names.id())), '#');
    let references: Vec<String> = entries
        .iter()
        .map(|entry| unique.take(entry.purl.clone(), '#'))
        .collect();
    let mut components = Vec::with_capacity(1 + entries.len());
    components.push(operating_system(subject, &names, &system));
    let packages = entries.iter().zip(&references);
    components.extend(packages.map(|(entry, reference)| library(entry, reference, &names)));
    let dependencies = vec![
        Dependency {
            r#ref: &host,
            depends_on: vec![&system],
        },
        Dependency {
            r#ref: &system,
            depends_on: references.iter().map(String::as_str).collect(),
        },
    ];
    let bom = Bom {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: format!("urn:uuid:{}", subject.serial()),
        version: 1,
        metadata: Metadata {
            timestamp: subject.at.to_string(),
            tools: Tools {
                components: [Tool {
                    r#type: "application",
                    name: TOOL,
                    version: TOOL_VERSION,
                }],
            },
            component: Component {
                r#type: "platform",
                bom_ref: &host,
                name: subject.host(),
                ..Component::default()
            },
        },
        components,
        dependencies,
    };
    // There is no map with other keys than text, and a Vec takes everything.
    serde_json::to_vec(&bom).unwrap_or_default()
}

fn operating_system<'a>(
    subject: &Subject<'a>,
    names: &DistroNames<'a>,
    reference: &'a str,
) -> Component<'a> {
    let distribution = &subject.report.distribution;
    let id = readable(names.id());
    let version = readable(names.version_id());
    let mut properties = vec![property("syft:distro:id", id.clone())];
    let mut add = |name, value: Text<'a>| {
        if !value.is_empty() {
            properties.push(property(name, value));
        }
    };
    add("syft:distro:versionID", version.clone());
    add(
        "syft:distro:prettyName",
        readable(&distribution.pretty_name),
    );
    // Readers number them; more than a few are of no use to anybody.
    for (name, like) in ID_LIKE.iter().zip(subject.id_like) {
        add(name, readable(like));
    }
    Component {
        r#type: "operating-system",
        bom_ref: reference,
        name: readable(names.family()),
        version: Some(version.clone()).filter(|version| !version.is_empty()),
        description: Some(readable(&distribution.pretty_name)).filter(|name| !name.is_empty()),
        cpe: distribution
            .cpe
            .parse::<Cpe>()
            .ok()
            .map(|cpe| cpe.to_string()),
        swid: Some(Swid {
            tag_id: id.clone(),
            name: id,
            version,
        }),
        properties,
        ..Component::default()
    }
}

const ID_LIKE: [&str; 4] = [
    "syft:distro:idLike:0",
    "syft:distro:idLike:1",
    "syft:distro:idLike:2",
    "syft:distro:idLike:3",
];

fn library<'a>(entry: &'a Entry<'_>, reference: &'a str, names: &DistroNames<'a>) -> Component<'a> {
    let details = entry.details;
    let url = details.and_then(|details| url(details.url.as_deref()?));
    Component {
        r#type: "library",
        bom_ref: reference,
        publisher: some_readable(entry.package.vendor.as_ref()),
        name: Cow::Borrowed(&entry.name),
        version: Some(Cow::Borrowed(&entry.version)),
        description: details.and_then(|details| some_readable(details.summary.as_ref())),
        licenses: entry.license.as_ref().map(|license| {
            [match license {
                License::Id(id) => LicenseChoice::License(LicenseName::Id(id)),
                License::Text(text) => LicenseChoice::License(LicenseName::Name(text)),
                License::Expression(expression) => LicenseChoice::Expression(expression),
            }]
        }),
        purl: Some(&entry.purl),
        external_references: url.map(|url| {
            [ExternalReference {
                r#type: "website",
                url,
            }]
        }),
        properties: properties(entry, names),
        ..Component::default()
    }
}

fn property<'a>(name: &'static str, value: Text<'a>) -> Property<'a> {
    Property { name, value }
}

fn properties<'a>(entry: &'a Entry<'_>, names: &DistroNames<'a>) -> Vec<Property<'a>> {
    let package = entry.package;
    let module = purl::module_label(package);
    let mut properties = vec![
        property("syft:package:type", "rpm".into()),
        property("syft:package:metadataType", "rpm-db-entry".into()),
    ];
    let mut add = |name, value| properties.push(property(name, value));
    if let Some(file) = purl::source_rpm(package) {
        add("syft:metadata:sourceRpm", readable(file));
    }
    let epoch = package.evr.epoch.to_string();
    if package.evr.epoch != 0 {
        add("syft:metadata:epoch", epoch.clone().into());
    }
    if !package.evr.release.is_empty() {
        add("syft:metadata:release", readable(&package.evr.release));
    }
    match &module {
        Some(label) => add("syft:metadata:modularityLabel", label.clone()),
        // Without it Grype matches the package with the advisories of modules too.
        None if names.says_no_module() => add("syft:metadata:modularityLabel", "".into()),
        None => {}
    }
    if let Some((name, version, release)) = source(package) {
        add("aquasecurity:trivy:SrcName", readable(name));
        add("aquasecurity:trivy:SrcVersion", readable(version));
        add("aquasecurity:trivy:SrcRelease", readable(release));
        add("aquasecurity:trivy:SrcEpoch", epoch.into());
    }
    if let Some(label) = module {
        add("aquasecurity:trivy:Modularitylabel", label);
    }
    for set in &entry.content_sets {
        add("aquasecurity:trivy:ContentSet", readable(set));
    }
    if let Some(packager) = entry.packager() {
        add("afferent:packager", packager);
    }
    if let Some(details) = entry.details {
        if let Some(time) = details.built_at {
            add("afferent:buildTime", seconds(time.into()).into());
        }
        if let Some(time) = details.installed_at {
            add("afferent:installTime", seconds(time.into()).into());
        }
    }
    properties
}

/// Name, version and release of the source package; Trivy wants all of them or none.
fn source(package: &Package) -> Option<(&str, &str, &str)> {
    let source = package.source()?;
    let (version, release) = source.version.rsplit_once('-')?;
    (!version.is_empty() && !release.is_empty()).then_some((source.name, version, release))
}
