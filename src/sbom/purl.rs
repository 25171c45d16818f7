//! Package URLs of type `rpm`: `pkg:rpm/redhat/bash@5.1.8-9.el9?arch=x86_64&distro=redhat-9.4`.
//!
//! Trivy takes the architecture and the epoch from the qualifiers alone: without them it finds nothing, or
//! reports what was fixed long ago. It reads the module from `modularitylabel`, Grype from `rpmmod`; the
//! source package only Grype reads from here, `upstream`.

use super::distro::DistroNames;
use super::text::readable;
use crate::report::{ABSENT, Package};
use std::borrow::Cow;
use std::fmt::Write as _;

/// What a package without an architecture has as its qualifier: one is needed.
const NO_ARCH: &str = "noarch";

/// The package URL of a package.
pub(super) fn of(package: &Package, names: &DistroNames<'_>, distro: Option<&str>) -> String {
    let mut purl = String::with_capacity(192);
    purl.push_str("pkg:rpm/");
    if let Some(namespace) = names.namespace() {
        encode(&namespace.to_ascii_lowercase(), &mut purl);
        purl.push('/');
    }
    encode(&readable(&package.name), &mut purl);
    purl.push('@');
    encode(&version_release(package), &mut purl);
    let epoch = match package.evr.epoch {
        0 => None,
        epoch => Some(Cow::Owned(epoch.to_string())),
    };
    let module = module_label(package);
    let arch = package.arch.as_deref().filter(|arch| !arch.is_empty());
    let qualifiers = [
        ("arch", Some(readable(arch.unwrap_or(NO_ARCH)))),
        ("distro", distro.map(readable)),
        ("epoch", epoch),
        ("modularitylabel", module.clone()),
        ("rpmmod", module),
        ("upstream", source_rpm(package).map(readable)),
    ];
    let mut separator = '?';
    for (name, value) in qualifiers {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            continue;
        };
        purl.push(separator);
        separator = '&';
        purl.push_str(name);
        purl.push('=');
        encode(&value, &mut purl);
    }
    purl
}

/// `VERSION-RELEASE`, as readable text.
pub(super) fn version_release(package: &Package) -> Cow<'_, str> {
    let evr = &package.evr;
    match evr.release.as_str() {
        "" => readable(&evr.version),
        release => Cow::Owned(format!("{}-{}", readable(&evr.version), readable(release))),
    }
}

/// The label of the module: what a sensor knows of it, `name:stream`, is closed by a colon, since Trivy
/// takes only what stands between two colons for the stream.
pub(super) fn module_label(package: &Package) -> Option<Cow<'_, str>> {
    let label = package.modularity_label.as_deref();
    let label = label.filter(|label| !label.is_empty() && *label != ABSENT)?;
    Some(match label.matches(':').count() {
        1 => Cow::Owned(format!("{}:", readable(label))),
        _ => readable(label),
    })
}

/// The file name of the source rpm, where the header has one.
pub(super) fn source_rpm(package: &Package) -> Option<&str> {
    let file = package.source_rpm.as_deref();
    file.filter(|file| !file.is_empty() && *file != ABSENT)
}

/// Percent-encodes all but letters, digits, `-._~` and the colon.
fn encode(text: &str, purl: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                purl.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(purl, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Distribution, Evr};

    fn purl(package: &Package, id: &str, version_id: &str) -> String {
        let distribution = Distribution {
            id: id.into(),
            version_id: version_id.into(),
            ..Distribution::default()
        };
        let names = DistroNames::of(&distribution);
        of(package, &names, names.distro().as_deref())
    }

    fn package() -> Package {
        Package {
            name: "libstdc++".into(),
            evr: Evr::parse("11.4.1-3.el9"),
            arch: Some("x86_64".into()),
            source_rpm: Some("gcc-11.4.1-3.el9.src.rpm".into()),
            ..Package::default()
        }
    }

    #[test]
    fn keys_are_sorted_and_values_encoded() {
        assert_eq!(
            purl(&package(), "rhel", "9.4"),
            "pkg:rpm/redhat/libstdc%2B%2B@11.4.1-3.el9?arch=x86_64&distro=redhat-9.4&upstream=gcc-11.4.1-3.el9.src.rpm"
        );
        let module = Package {
            name: "nodejs".into(),
            evr: Evr::parse("1:18.19.0-1.module_el9+842+1"),
            arch: None,
            modularity_label: Some("nodejs:18:9040020240301:rhel9".into()),
            source_rpm: None,
            ..Package::default()
        };
        assert_eq!(
            purl(&module, "ol", "9.4"),
            "pkg:rpm/oracle/nodejs@18.19.0-1.module_el9%2B842%2B1?arch=noarch&distro=ol-9.4&epoch=1\
             &modularitylabel=nodejs:18:9040020240301:rhel9&rpmmod=nodejs:18:9040020240301:rhel9"
        );
    }

    #[test]
    fn without_os_release_there_is_neither_namespace_nor_distro() {
        assert_eq!(
            purl(&package(), "", ""),
            "pkg:rpm/libstdc%2B%2B@11.4.1-3.el9?arch=x86_64&upstream=gcc-11.4.1-3.el9.src.rpm"
        );
    }

    #[test]
    fn a_module_of_name_and_stream_alone_is_closed_by_a_colon() {
        let pulled = Package {
            modularity_label: Some("nodejs:18".into()),
            ..package()
        };
        assert_eq!(module_label(&pulled).as_deref(), Some("nodejs:18:"));
    }
}
