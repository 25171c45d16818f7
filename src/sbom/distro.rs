//! The names of a distribution, as the programs that match packages with advisories spell them.
//!
//! | os-release ID | OS component | distro ID | purl namespace | purl distro |
//! |---|---|---|---|---|
//! | `rhel` | `redhat` | `rhel` | `redhat` | `redhat-9.4` |
//! | `almalinux` | `alma` | `almalinux` | `almalinux` | `almalinux-9.4` |
//!
//! Trivy takes the distribution from the *name* of the OS component, in its own words; Grype from the
//! os-release ID in `swid` and `syft:distro:id`, or from the purl's `distro`. A wrong word makes either of them
//! find nothing, and neither says so.

use crate::report::{Distribution, Package, Repository};

/// How one distribution is called.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// `ID` of os-release.
    id: &'static str,
    /// Trivy's word, the name of the OS component.
    family: &'static str,
    /// Namespace of package URLs.
    namespace: &'static str,
    /// What precedes the version in the purl's `distro`.
    distro: &'static str,
}

const fn known(
    id: &'static str,
    family: &'static str,
    namespace: &'static str,
    distro: &'static str,
) -> Known {
    Known {
        id,
        family,
        namespace,
        distro,
    }
}

/// The distributions for which both programs find what they should.
const KNOWN: [Known; 16] = [
    // `rhel-9.4` would do for Grype; Dependency-Track reads both.
    known("rhel", "redhat", "redhat", "redhat"),
    // Stream too: there is no other data, and `centos-stream` is a word that nobody reads.
    known("centos", "centos", "centos", "centos"),
    known("rocky", "rocky", "rocky", "rocky"),
    known("almalinux", "alma", "almalinux", "almalinux"),
    known("ol", "oracle", "oracle", "ol"),
    known("amzn", "amazon", "amazon", "amzn"),
    known("sles", "sles", "suse", "sles"),
    known("sle-micro", "slem", "suse", "sle-micro"),
    known("sl-micro", "slem", "suse", "sl-micro"),
    known(
        "opensuse-leap",
        "opensuse-leap",
        "opensuse",
        "opensuse-leap",
    ),
    known(
        "opensuse-tumbleweed",
        "opensuse-tumbleweed",
        "opensuse",
        "opensuse-tumbleweed",
    ),
    known("fedora", "fedora", "fedora", "fedora"),
    known("photon", "photon", "photon", "photon"),
    known("azurelinux", "azurelinux", "azurelinux", "azurelinux"),
    // Grype cuts the name at its first dash, so `cbl-mariner-2.0` would be `cbl`.
    known("mariner", "cbl-mariner", "mariner", "mariner"),
    known("opensuse", "opensuse", "opensuse", "opensuse"),
];

/// What os-release(5) says of a system that does not say what it is.
const NO_ID: &str = "linux";

/// Distributions whose module packages Grype tells from others only by an empty label on the others.
const RHEL_KIN: [&str; 5] = ["rhel", "centos", "rocky", "almalinux", "ol"];

/// The first major version that has modules.
const FIRST_WITH_MODULES: u32 = 8;

/// Trivy has default content sets up to the version before this one, and fails at the whole document
/// where it has none.
const FIRST_WITHOUT_DEFAULT: u32 = 10;

/// The names of one distribution.
#[derive(Clone, Debug)]
pub(super) struct DistroNames<'a> {
    distribution: &'a Distribution,
    known: Option<Known>,
}

impl<'a> DistroNames<'a> {
    pub(super) fn of(distribution: &'a Distribution) -> Self {
        let known = KNOWN.iter().find(|known| known.id == distribution.id);
        Self {
            distribution,
            known: known.copied(),
        }
    }

    /// Name of the OS component.
    pub(super) fn family(&self) -> &'a str {
        match self.known {
            Some(known) => known.family,
            None => self.id(),
        }
    }

    /// `ID` of os-release, or what that stands for where there is none.
    pub(super) fn id(&self) -> &'a str {
        match self.distribution.id.as_str() {
            "" => NO_ID,
            id => id,
        }
    }

    /// `VERSION_ID` as it is: Trivy cuts off of it what it does not want.
    pub(super) fn version_id(&self) -> &'a str {
        &self.distribution.version_id
    }

    /// Namespace of package URLs; none without os-release.
    pub(super) fn namespace(&self) -> Option<&'a str> {
        let own = Some(self.distribution.id.as_str());
        self.known
            .map_or(own, |known| Some(known.namespace))
            .filter(|n| !n.is_empty())
    }

    /// `distro` of package URLs; none without os-release.
    pub(super) fn distro(&self) -> Option<String> {
        let id = self
            .known
            .map_or(self.distribution.id.as_str(), |known| known.distro);
        match (id, self.version_id()) {
            ("", _) => None,
            (id, "") => Some(id.to_owned()),
            (id, version) => Some(format!("{id}-{version}")),
        }
    }

    fn major(&self) -> u32 {
        let digits = self.version_id().split(|c: char| !c.is_ascii_digit());
        digits
            .into_iter()
            .next()
            .and_then(|d| d.parse().ok())
            .unwrap_or(0)
    }

    /// Whether a package that is of no module has to say so.
    pub(super) fn says_no_module(&self) -> bool {
        RHEL_KIN.contains(&self.distribution.id.as_str()) && self.major() >= FIRST_WITH_MODULES
    }

    /// The content sets that Trivy matches a package with: its own repository, where that is one of Red
    /// Hat's, or where Trivy has no default, those that everybody has.
    pub(super) fn content_sets(
        &self,
        package: &Package,
        repositories: &[Repository],
    ) -> Vec<String> {
        let major = self.major();
        let id = self.distribution.id.as_str();
        if let ("rhel", Some(own)) = (id, package.origin.repository())
            && (is_content_set(own, major) || has_cpe(own, repositories))
        {
            return vec![own.to_owned()];
        }
        if !matches!(id, "rhel" | "centos") || major < FIRST_WITHOUT_DEFAULT {
            return Vec::new();
        }
        let arch = match self.distribution.arch.as_str() {
            "" => package.arch.as_deref().unwrap_or("x86_64"),
            arch => arch,
        };
        let set = |part: &str| format!("rhel-{major}-for-{arch}-{part}-rpms");
        vec![set("baseos"), set("appstream")]
    }
}

/// Whether a repository is called as Red Hat calls its own. One that Trivy does not know, of a mirror or of
/// an installation medium, would be an error for the whole document.
fn is_content_set(id: &str, major: u32) -> bool {
    let own = id.strip_prefix(&format!("rhel-{major}-"));
    own.is_some_and(|rest| {
        rest.ends_with("-rpms") && !rest.contains("rhui") && (major < 8 || rest.starts_with("for-"))
    })
}

/// Whether Red Hat's mapping knows the repository.
fn has_cpe(id: &str, repositories: &[Repository]) -> bool {
    repositories
        .iter()
        .any(|repository| repository.id == id && !repository.cpe.is_empty())
}

/// Why vulnerability scanners will find nothing, or less, in a document about this distribution: they do not say
/// so themselves.
pub fn remark(distribution: &Distribution) -> Option<String> {
    let id = distribution.id.as_str();
    if id.is_empty() {
        return Some(
            "the distribution is not known, so vulnerability scanners will find nothing in this document"
                .into(),
        );
    }
    if id == "fedora" {
        return Some(
            "Trivy has no advisories for Fedora and will find nothing in this document; Grype reads it".into(),
        );
    }
    // The bare word is of systems before Leap and Tumbleweed: it has a namespace, and no advisories.
    let is_known = id != "opensuse" && KNOWN.iter().any(|known| known.id == id);
    (!is_known).then(|| {
        format!(
            "vulnerability scanners do not know the distribution {id:?} and will find nothing in this document"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Origin;

    fn distribution(id: &str, version_id: &str) -> Distribution {
        Distribution {
            id: id.into(),
            version_id: version_id.into(),
            arch: "aarch64".into(),
            ..Distribution::default()
        }
    }

    #[test]
    fn each_distribution_has_the_names_that_its_readers_know() {
        for (id, version, family, namespace, distro) in [
            ("rhel", "9.4", "redhat", "redhat", "redhat-9.4"),
            ("centos", "9", "centos", "centos", "centos-9"),
            ("rocky", "9.4", "rocky", "rocky", "rocky-9.4"),
            ("almalinux", "9.4", "alma", "almalinux", "almalinux-9.4"),
            ("ol", "9.4", "oracle", "oracle", "ol-9.4"),
            ("amzn", "2023", "amazon", "amazon", "amzn-2023"),
            ("sles", "15.6", "sles", "suse", "sles-15.6"),
            ("sle-micro", "5.5", "slem", "suse", "sle-micro-5.5"),
            (
                "opensuse-leap",
                "15.6",
                "opensuse-leap",
                "opensuse",
                "opensuse-leap-15.6",
            ),
            ("sl-micro", "6.0", "slem", "suse", "sl-micro-6.0"),
            (
                "opensuse-tumbleweed",
                "20260101",
                "opensuse-tumbleweed",
                "opensuse",
                "opensuse-tumbleweed-20260101",
            ),
            ("opensuse", "13.2", "opensuse", "opensuse", "opensuse-13.2"),
            ("fedora", "42", "fedora", "fedora", "fedora-42"),
            ("photon", "5.0", "photon", "photon", "photon-5.0"),
            (
                "azurelinux",
                "3.0",
                "azurelinux",
                "azurelinux",
                "azurelinux-3.0",
            ),
            (
                "mariner",
                "2.0.20240609",
                "cbl-mariner",
                "mariner",
                "mariner-2.0.20240609",
            ),
            ("mageia", "9", "mageia", "mageia", "mageia-9"),
        ] {
            let distribution = distribution(id, version);
            let names = DistroNames::of(&distribution);
            assert_eq!(names.family(), family);
            assert_eq!(names.namespace(), Some(namespace));
            assert_eq!(names.distro().as_deref(), Some(distro));
            assert_eq!((names.id(), names.version_id()), (id, version));
        }
        let unknown = Distribution::default();
        let names = DistroNames::of(&unknown);
        assert_eq!(
            (names.family(), names.namespace(), names.distro()),
            ("linux", None, None)
        );
    }

    #[test]
    fn content_sets_are_red_hats_own_and_a_default_where_trivy_has_none() {
        let of = |id: &str, version: &str, repo: &str, repositories: &[Repository]| {
            let distribution = distribution(id, version);
            let package = Package {
                origin: Origin::recorded(repo),
                ..Package::default()
            };
            DistroNames::of(&distribution).content_sets(&package, repositories)
        };
        let own = "rhel-9-for-aarch64-appstream-eus-rpms";
        assert_eq!(of("rhel", "9.4", own, &[]), [own]);
        assert_eq!(
            of("rhel", "7.9", "rhel-7-server-rpms", &[]),
            ["rhel-7-server-rpms"]
        );
        for foreign in [
            "anaconda",
            "AppStream",
            "epel",
            "@System",
            "rhel-9-baseos-rhui-rpms",
            "",
        ] {
            assert!(of("rhel", "9.4", foreign, &[]).is_empty(), "{foreign}");
        }
        let mapped = Repository {
            id: "AppStream".into(),
            cpe: "cpe:/a:redhat:enterprise_linux:9".into(),
            ..Repository::default()
        };
        assert_eq!(of("rhel", "9.4", "AppStream", &[mapped]), ["AppStream"]);
        let default = [
            "rhel-10-for-aarch64-baseos-rpms",
            "rhel-10-for-aarch64-appstream-rpms",
        ];
        assert_eq!(of("rhel", "10.0", "epel", &[]), default);
        assert_eq!(of("centos", "10", "baseos", &[]), default);
        assert!(of("centos", "9", "baseos", &[]).is_empty());
        assert!(of("rocky", "10.0", "baseos", &[]).is_empty());
    }

    #[test]
    fn only_kin_of_rhel_with_modules_say_that_a_package_is_of_none() {
        for (id, version, says) in [
            ("rhel", "8.9", true),
            ("ol", "9.4", true),
            ("rhel", "7.9", false),
            ("fedora", "42", false),
            ("amzn", "2023", false),
            ("centos", "", false),
        ] {
            let distribution = distribution(id, version);
            assert_eq!(
                DistroNames::of(&distribution).says_no_module(),
                says,
                "{id} {version}"
            );
        }
    }

    #[test]
    fn what_scanners_do_not_know_is_remarked() {
        let remark = |id: &str| remark(&distribution(id, "9"));
        assert!(remark("fedora").unwrap().contains("Trivy"));
        assert!(remark("mageia").unwrap().contains("mageia"));
        assert!(remark("").unwrap().contains("not known"));
        assert!(remark("opensuse").unwrap().contains("opensuse"));
        assert_eq!(remark("opensuse-leap"), None);
        assert_eq!(remark("rhel"), None);
    }
}
