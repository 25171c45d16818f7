//! Facts about the guest that stand beside its packages.

use super::rooted;
use crate::report::{Distribution, Facts, facts};
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
        (
            facts::OS_VERSION.to_owned(),
            distribution.version_id.clone(),
        ),
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

/// An entitlement certificate counts together with its key.
fn activation(root: &Path) -> &'static str {
    let directory = "etc/pki/entitlement";
    if rooted::resolve(root, Path::new(directory))
        .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
    {
        return "INACTIVE";
    }
    let Some(names) = rooted::list(root, directory) else {
        return "ACTIVATION_UNSPECIFIED";
    };
    let keyed = names.iter().any(|name| {
        name.strip_suffix(".pem").is_some_and(|serial| {
            !serial.is_empty() && names.contains(&format!("{serial}-key.pem"))
        })
    });
    if keyed { "ACTIVE" } else { "INACTIVE" }
}

/// Repositories are configured, and their metadata was fetched.
fn metadata(root: &Path) -> &'static str {
    const CONFIGURED: [&str; 4] = [
        "etc/yum.repos.d",
        "etc/yum/repos.d",
        "etc/distro.repos.d",
        "usr/share/dnf5/repos.d",
    ];
    let configured = CONFIGURED.iter().any(|directory| {
        rooted::list(root, directory)
            .is_some_and(|names| names.iter().any(|name| name.ends_with(".repo")))
    });
    // Beside the directory of each repository dnf keeps files of nearly the same name.
    let fetched = rooted::list_directories(root, "var/cache/dnf")
        .is_some_and(|names| names.iter().any(|name| name.contains("-rpms-")))
        || rooted::list_directories(root, "var/cache/libdnf5")
            .is_some_and(|names| !names.is_empty());
    if configured && fetched {
        "AVAILABLE"
    } else {
        "UNAVAILABLE"
    }
}
