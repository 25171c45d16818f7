//! Documents as a whole: their form, what is unique in them, and what no text can bring into them.

use super::*;
use crate::report::escape::escape;
use crate::report::{Distribution, Evr, Origin};
use proptest::prelude::*;
use serde_json::{Value, json};

fn report(packages: Vec<Package>) -> Report {
    Report {
        packages,
        distribution: Distribution {
            id: "rhel".into(),
            version_id: "9.4".into(),
            cpe: "cpe:2.3:o:redhat:enterprise_linux:9".into(),
            pretty_name: "Red Hat Enterprise Linux 9.4 (Plow)".into(),
            arch: "x86_64".into(),
            ..Distribution::default()
        },
        ..Report::default()
    }
}

fn package(name: &str, version: &str) -> Package {
    Package {
        name: name.into(),
        evr: Evr::parse(version),
        arch: Some("x86_64".into()),
        ..Package::default()
    }
}

fn openssl_libs() -> Package {
    Package {
        source_rpm: Some("openssl-3.0.7-27.el9.src.rpm".into()),
        vendor: Some("Red Hat, Inc.".into()),
        license: Some("ASL 2.0".into()),
        origin: Origin::recorded("rhel-9-for-x86_64-baseos-rpms"),
        ..package("openssl-libs", "1:3.0.7-27.el9")
    }
}

fn subject<'a>(report: &'a Report, details: &'a [PackageDetails]) -> Subject<'a> {
    Subject {
        report,
        digest: report.digest(),
        host: "web-1",
        at: "2026-11-21T10:00:00.123Z".parse().unwrap(),
        id_like: &[],
        details,
    }
}

fn value(subject: &Subject<'_>, format: BomFormat) -> Value {
    serde_json::from_slice(&subject.document(format)).unwrap()
}

fn property<'a>(component: &'a Value, name: &str) -> Option<&'a str> {
    let properties = component["properties"].as_array()?;
    let property = properties
        .iter()
        .find(|property| property["name"] == name)?;
    property["value"].as_str()
}

#[test]
fn cyclonedx_says_of_a_package_what_scanners_read() {
    let report = report(vec![openssl_libs()]);
    let details = [PackageDetails {
        summary: Some("A toolkit".into()),
        url: Some("http://www.openssl.org/".into()),
        packager: Some("Red Hat, Inc. <http://bugzilla.redhat.com/>".into()),
        built_at: Some(1_600_000_000),
        installed_at: Some(1_700_000_000),
    }];
    let subject = subject(&report, &details);
    let text = String::from_utf8(subject.document(BomFormat::CycloneDx)).unwrap();
    let head = "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\",\"serialNumber\":\"urn:uuid:";
    assert!(text.starts_with(head), "{text}");
    let bom = value(&subject, BomFormat::CycloneDx);
    assert_eq!(bom["metadata"]["timestamp"], "2026-11-21T10:00:00.123Z");
    assert_eq!(bom["metadata"]["component"]["type"], "platform");
    assert_eq!(bom["metadata"]["component"]["name"], "web-1");
    let system = &bom["components"][0];
    assert_eq!(
        (&system["type"], &system["name"]),
        (&"operating-system".into(), &"redhat".into())
    );
    assert_eq!(system["swid"]["name"], "rhel");
    assert_eq!(
        system["cpe"],
        "cpe:2.3:o:redhat:enterprise_linux:9:*:*:*:*:*:*:*"
    );
    assert_eq!(property(system, "syft:distro:versionID"), Some("9.4"));
    let library = &bom["components"][1];
    let purl = "pkg:rpm/redhat/openssl-libs@3.0.7-27.el9?arch=x86_64&distro=redhat-9.4&epoch=1&upstream=openssl-3.0.7-27.el9.src.rpm";
    assert_eq!(library["purl"], purl);
    assert_eq!(library["bom-ref"], purl);
    assert_eq!(library["version"], "1:3.0.7-27.el9");
    assert_eq!(library["publisher"], "Red Hat, Inc.");
    assert_eq!(library["licenses"][0]["license"]["name"], "ASL 2.0");
    assert_eq!(library["description"], "A toolkit");
    assert_eq!(
        library["externalReferences"][0]["url"],
        "http://www.openssl.org/"
    );
    assert!(library.get("group").is_none());
    for (name, said) in [
        ("syft:package:type", "rpm"),
        ("syft:package:metadataType", "rpm-db-entry"),
        ("syft:metadata:sourceRpm", "openssl-3.0.7-27.el9.src.rpm"),
        ("syft:metadata:epoch", "1"),
        ("syft:metadata:release", "27.el9"),
        ("syft:metadata:modularityLabel", ""),
        ("aquasecurity:trivy:SrcName", "openssl"),
        ("aquasecurity:trivy:SrcVersion", "3.0.7"),
        ("aquasecurity:trivy:SrcRelease", "27.el9"),
        ("aquasecurity:trivy:SrcEpoch", "1"),
        (
            "aquasecurity:trivy:ContentSet",
            "rhel-9-for-x86_64-baseos-rpms",
        ),
        ("afferent:buildTime", "2020-09-13T12:26:40Z"),
        ("afferent:installTime", "2023-11-14T22:13:20Z"),
    ] {
        assert_eq!(property(library, name), Some(said), "{name}");
    }
    assert_eq!(
        property(library, "aquasecurity:trivy:Modularitylabel"),
        None
    );
    let dependencies = bom["dependencies"].as_array().unwrap();
    assert_eq!(dependencies[0]["dependsOn"][0], system["bom-ref"]);
    assert_eq!(dependencies[1]["dependsOn"][0], purl);
}

#[test]
fn licences_stand_as_an_id_an_expression_or_a_name() {
    let of = |license: &str| Package {
        license: Some(license.into()),
        ..package("a", "1-1")
    };
    let report = report(vec![of("MIT"), of("MIT AND Apache-2.0"), of("GPLv2+")]);
    let bom = value(&subject(&report, &[]), BomFormat::CycloneDx);
    let licenses = |at: usize| bom["components"][at]["licenses"].clone();
    assert_eq!(licenses(1), json!([{ "license": { "id": "MIT" } }]));
    assert_eq!(licenses(2), json!([{ "expression": "MIT AND Apache-2.0" }]));
    assert_eq!(licenses(3), json!([{ "license": { "name": "GPLv2+" } }]));
}

#[test]
fn a_package_of_a_module_has_its_label_for_every_reader() {
    let label = "nodejs:18:9040020240301:rhel9";
    let report = report(vec![Package {
        modularity_label: Some(label.into()),
        ..package("nodejs", "1:18.19.0-1.el9")
    }]);
    let bom = value(&subject(&report, &[]), BomFormat::CycloneDx);
    let library = &bom["components"][1];
    for name in [
        "syft:metadata:modularityLabel",
        "aquasecurity:trivy:Modularitylabel",
    ] {
        assert_eq!(property(library, name), Some(label), "{name}");
    }
    let purl = library["purl"].as_str().unwrap();
    for key in ["modularitylabel=", "rpmmod="] {
        assert!(purl.contains(key), "{key}: {purl}");
    }
}

#[test]
fn the_system_has_its_names_and_no_package_has_a_guessed_cpe() {
    let report = report(vec![openssl_libs(), package("bash", "5-1")]);
    let like = ["fedora".to_owned(), "centos".to_owned()];
    let mut subject = subject(&report, &[]);
    subject.id_like = &like;
    let bom = value(&subject, BomFormat::CycloneDx);
    let system = &bom["components"][0];
    for (name, said) in [
        ("syft:distro:id", Some("rhel")),
        (
            "syft:distro:prettyName",
            Some("Red Hat Enterprise Linux 9.4 (Plow)"),
        ),
        ("syft:distro:idLike:0", Some("fedora")),
        ("syft:distro:idLike:1", Some("centos")),
        ("syft:distro:idLike:2", None),
    ] {
        assert_eq!(property(system, name), said, "{name}");
    }
    for library in &bom["components"].as_array().unwrap()[1..] {
        assert_eq!(library.get("cpe"), None);
    }
    let spdx = value(&subject, BomFormat::Spdx);
    for package in &spdx["packages"].as_array().unwrap()[1..] {
        let references = package["externalRefs"].as_array().unwrap();
        assert!(references.iter().all(|one| one["referenceType"] == "purl"));
    }
}

#[test]
fn a_package_without_a_vendor_names_its_packager() {
    let report = report(vec![package("ours", "1-1")]);
    let details = [PackageDetails {
        packager: Some("Ops <ops@example.com>".into()),
        installed_at: Some(1_700_000_000),
        ..PackageDetails::default()
    }];
    let subject = subject(&report, &details);
    let bom = value(&subject, BomFormat::CycloneDx);
    let said = property(&bom["components"][1], "afferent:packager");
    assert_eq!(said, Some("Ops <ops@example.com>"));
    assert_eq!(
        value(&subject, BomFormat::Spdx)["packages"][1]["comment"],
        "Packager: Ops <ops@example.com>; Installed: 2023-11-14T22:13:20Z"
    );
}

#[test]
fn spdx_says_of_a_package_what_it_can() {
    let module = Package {
        license: Some("MIT AND Apache-2.0".into()),
        modularity_label: Some("nodejs:18:9040020240301:rhel9".into()),
        ..package("nodejs", "1:18.19.0-1.el9")
    };
    let report = report(vec![openssl_libs(), module]);
    let spdx = value(&subject(&report, &[]), BomFormat::Spdx);
    assert_eq!(spdx["creationInfo"]["created"], "2026-11-21T10:00:00Z");
    let [system, openssl, nodejs] = spdx["packages"].as_array().unwrap().as_slice() else {
        panic!("{spdx}");
    };
    assert_eq!(system["SPDXID"], "SPDXRef-OperatingSystem-rhel");
    assert_eq!(system["name"], "redhat");
    assert_eq!(system["primaryPackagePurpose"], "OPERATING-SYSTEM");
    assert_eq!(
        openssl["SPDXID"],
        "SPDXRef-Package-openssl-libs-1-3.0.7-27.el9.x86-64"
    );
    assert_eq!(openssl["filesAnalyzed"], false);
    assert_eq!(openssl["supplier"], "Organization: Red Hat, Inc.");
    assert_eq!(
        openssl["sourceInfo"],
        "built package from: openssl 1:3.0.7-27.el9"
    );
    assert_eq!(openssl["licenseDeclared"], "LicenseRef-ASL-2.0");
    let infos = &spdx["hasExtractedLicensingInfos"];
    assert_eq!(infos[0]["licenseId"], "LicenseRef-ASL-2.0");
    assert_eq!(infos[0]["extractedText"], "ASL 2.0");
    assert_eq!(
        openssl["externalRefs"][0]["referenceCategory"],
        "PACKAGE-MANAGER"
    );
    assert_eq!(nodejs["licenseDeclared"], "MIT AND Apache-2.0");
    assert_eq!(
        nodejs["annotations"][0]["comment"],
        "Modularitylabel: nodejs:18:9040020240301:rhel9"
    );
    let relations = spdx["relationships"].as_array().unwrap();
    assert_eq!(relations[0]["relationshipType"], "DESCRIBES");
    assert_eq!(relations[2]["relatedSpdxElement"], nodejs["SPDXID"]);
}

#[test]
fn a_source_that_is_not_known_whole_is_not_said_in_part() {
    let odd = Package {
        source_rpm: Some("openssl-3.0.7.src.rpm".into()),
        ..package("openssl", "3.0.7-1")
    };
    let report = report(vec![odd, package("bash", "5-1")]);
    let bom = value(&subject(&report, &[]), BomFormat::CycloneDx);
    for component in &bom["components"].as_array().unwrap()[1..] {
        for name in ["SrcName", "SrcVersion", "SrcRelease", "SrcEpoch"] {
            assert_eq!(
                property(component, &format!("aquasecurity:trivy:{name}")),
                None
            );
        }
    }
    assert_eq!(bom["components"][2].get("publisher"), None);
}

#[test]
fn two_headers_of_one_package_have_two_references() {
    // The names of the last two fold to one in SPDX, and the fourth is what the second would be called.
    let mut fourth = package("bash", "5-1");
    fourth.arch = Some("x86_64-2".into());
    let report = report(vec![
        package("bash", "5-1"),
        package("bash", "5-1"),
        fourth,
        package("bash", "5_1"),
    ]);
    let bom = value(&subject(&report, &[]), BomFormat::CycloneDx);
    let mut references: Vec<_> = bom["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["bom-ref"].to_string())
        .collect();
    let spdx = value(&subject(&report, &[]), BomFormat::Spdx);
    let mut ids: Vec<_> = spdx["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["SPDXID"].to_string())
        .collect();
    for names in [&mut references, &mut ids] {
        assert_eq!(names.len(), 5);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5, "{names:?}");
    }
}

#[test]
fn equal_reports_at_one_time_are_equal_bytes_and_any_difference_another_number() {
    let first = report(vec![openssl_libs()]);
    let serial = |report: &Report, host: &str, at: &str| {
        let subject = Subject {
            host,
            at: at.parse().unwrap(),
            ..subject(report, &[])
        };
        assert_eq!(
            subject.document(BomFormat::Spdx),
            subject.document(BomFormat::Spdx)
        );
        value(&subject, BomFormat::CycloneDx)["serialNumber"].to_string()
    };
    let (at, later) = ("2026-11-21T10:00:00Z", "2026-11-21T10:00:01Z");
    let number = serial(&first, "a", at);
    assert_eq!(serial(&report(vec![openssl_libs()]), "a", at), number);
    let second = report(vec![package("bash", "5-1")]);
    for other in [
        serial(&second, "a", at),
        serial(&first, "b", at),
        serial(&first, "a", later),
    ] {
        assert_ne!(other, number);
    }
}

/// Bytes as a hostile header has them.
fn bytes() -> impl Strategy<Value = String> {
    let byte = prop_oneof![
        Just(b'a'),
        Just(b'/'),
        Just(b'-'),
        Just(b'"'),
        Just(b'\\'),
        Just(b'\n'),
        Just(0x1b),
        Just(0xe9),
        any::<u8>()
    ];
    proptest::collection::vec(byte, 0..8).prop_map(|bytes| escape(&bytes).into_owned())
}

fn hostile() -> impl Strategy<Value = (Package, PackageDetails)> {
    let some = || proptest::option::of(bytes());
    let package = (
        bytes(),
        bytes(),
        bytes(),
        0..2u32,
        some(),
        some(),
        some(),
        some(),
        some(),
    );
    let details = (some(), some(), some());
    (package, details).prop_map(|(package, (summary, url, packager))| {
        let (name, version, release, epoch, arch, source, modularity_label, vendor, license) =
            package;
        let package = Package {
            name,
            evr: Evr {
                epoch,
                version,
                release,
            },
            arch,
            source_rpm: source.map(|source| format!("{source}-1-2.src.rpm")),
            modularity_label,
            vendor,
            license,
            origin: Origin::Unrecorded,
        };
        let details = PackageDetails {
            summary,
            url,
            packager,
            built_at: Some(u32::MAX),
            installed_at: None,
        };
        (package, details)
    })
}

fn texts(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::String(text) => all.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, all)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, all)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_bytes_of_a_header_reach_a_document_raw(
        all in proptest::collection::vec(hostile(), 0..6),
        (id, version_id, host) in (bytes(), bytes(), bytes()),
    ) {
        let (packages, details): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let mut report = report(packages);
        (report.distribution.id, report.distribution.version_id) = (id, version_id);
        let subject = Subject { host: &host, ..subject(&report, &details) };
        for format in [BomFormat::CycloneDx, BomFormat::Spdx] {
            let document = String::from_utf8(subject.document(format)).unwrap();
            prop_assert!(!document.contains(char::is_control), "{document}");
            let value: Value = serde_json::from_str(&document).unwrap();
            let mut all = Vec::new();
            texts(&value, &mut all);
            for text in &all {
                prop_assert!(!text.contains(char::is_control), "{text:?}");
            }
            let (list, reference) = match format {
                BomFormat::CycloneDx => ("components", "bom-ref"),
                BomFormat::Spdx => ("packages", "SPDXID"),
            };
            let list = value[list].as_array().unwrap();
            prop_assert_eq!(list.len(), 1 + report.packages.len());
            let references: HashSet<_> = list.iter().map(|one| one[reference].as_str().unwrap()).collect();
            prop_assert_eq!(references.len(), list.len());
            let is_purl = |c: char| c.is_ascii_alphanumeric() || "-._~:%/@?&=".contains(c);
            for purl in all.iter().filter(|text| text.starts_with("pkg:rpm/")) {
                // A reference may have a number behind it.
                let purl = purl.split('#').next().unwrap();
                prop_assert!(purl.chars().all(is_purl), "{purl}");
                prop_assert!(purl.matches('@').count() == 1 && purl.matches('?').count() == 1, "{purl}");
                prop_assert!(purl.contains("?arch="), "{purl}");
            }
            for id in references.iter().filter(|_| format == BomFormat::Spdx) {
                let id = id.strip_prefix("SPDXRef-").unwrap();
                prop_assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'), "{id}");
            }
        }
    }
}
