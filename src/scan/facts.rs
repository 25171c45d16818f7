//! Facts about the guest that stand beside its packages.

use crate::report::{Distribution, Facts, facts};
use crate::root::{list, list_directories};
use std::path::Path;

/// Content facts of the system below `root`.
pub(super) fn read(root: &Path, distribution: &Distribution) -> Facts {
    let os = if distribution.id == "rhel" {
        "RHEL"
    } else {
        "UNKNOWN"
    };
    Facts::from([
        (facts::DETECTED_OS.to_owned(), os.to_owned()),
        (facts::OS_VERSION.to_owned(), os_version(distribution)),
        (
            facts::ACTIVATION_STATUS.to_owned(),
            activation(root).to_owned(),
        ),
        (
            facts::DNF_METADATA_STATUS.to_owned(),
            metadata(root).to_owned(),
        ),
    ])
}

/// The number alone is that of RHEL; of any other system it is of use only with a name.
fn os_version(distribution: &Distribution) -> String {
    let version = &distribution.version_id;
    match distribution.id.as_str() {
        _ if version.is_empty() => String::new(),
        "rhel" => version.clone(),
        "" => format!("unknown-OS {version}"),
        id => format!("{id} {version}"),
    }
}

/// An entitlement certificate counts together with its key.
fn activation(root: &Path) -> &'static str {
    let Some(names) = list(root, Path::new("etc/pki/entitlement")) else {
        return "ACTIVATION_UNSPECIFIED";
    };
    let keyed = names.iter().any(|name| {
        name.strip_suffix(".pem").is_some_and(|serial| {
            !serial.is_empty() && names.contains(&format!("{serial}-key.pem"))
        })
    });
    if keyed { "ACTIVE" } else { "INACTIVE" }
}

/// Repositories are configured, and their metadata was fetched; unspecified where the directories
/// are missing in which that would show.
fn metadata(root: &Path) -> &'static str {
    const CONFIGURED: [&str; 4] = [
        "etc/yum.repos.d",
        "etc/yum/repos.d",
        "etc/distro.repos.d",
        "usr/share/dnf5/repos.d",
    ];
    let configured: Vec<Vec<String>> = CONFIGURED
        .iter()
        .filter_map(|directory| list(root, Path::new(directory)))
        .collect();
    if configured.is_empty() {
        return "DNF_METADATA_UNSPECIFIED";
    }
    if !configured
        .iter()
        .flatten()
        .any(|name| name.ends_with(".repo"))
    {
        return "UNAVAILABLE";
    }
    match fetched(root) {
        Some(true) => "AVAILABLE",
        Some(false) => "UNAVAILABLE",
        None => "DNF_METADATA_UNSPECIFIED",
    }
}

/// Whether metadata of a repository is kept; `None` without a directory for it.
fn fetched(root: &Path) -> Option<bool> {
    // Beside the directory of each repository dnf keeps files of nearly the same name.
    let dnf4 = list_directories(root, Path::new("var/cache/dnf"))
        .map(|names| names.iter().any(|name| name.contains("-rpms-")));
    let dnf5 =
        list_directories(root, Path::new("var/cache/libdnf5")).map(|names| !names.is_empty());
    dnf4.max(dnf5)
}
