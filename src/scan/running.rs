//! Facts of the system that runs from a root: its kernel, its boot, and whether another boot is due.
//!
//! What a kernel says of itself (`uname -r`) names its package, each distribution in its own way:
//!
//! | Distribution | Kernel | Package |
//! |---|---|---|
//! | RHEL and kin, Fedora, Amazon | `5.14.0-503.el9.x86_64`, `...x86_64+rt` | `kernel-core`, `kernel-rt-core`, `kernel` |
//! | Oracle | `5.15.0-200.131.27.el9uek.x86_64` | `kernel-uek-core`, `kernel-uek` |
//! | SUSE | `5.14.21-150500.55.19-default` | `kernel-default`, whose release has one number more |
//! | Photon, Azure Linux | `6.1.75-2.ph5-esx`, `6.6.57.1-1.azl3` | `linux-esx`, `kernel` |

use crate::report::escape::unescape;
use crate::report::evr::RpmVersion;
use crate::report::{Facts, Package, facts};
use std::cmp::Ordering;

/// What the kernel and the clocks of this machine say, where a root is that of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LiveSystem {
    /// `uname -r`.
    pub(super) kernel: String,
    /// Another one at every boot, where it can be had.
    pub(super) boot_id: Option<String>,
    /// Seconds since 1970 at which it booted.
    pub(super) booted_at: u64,
}

/// Packages that have a kernel, the one that counts first where several of one version are installed:
/// `kernel` of RHEL 8 and later is empty.
const KERNELS: [&str; 31] = [
    "kernel-core",
    "kernel-rt-core",
    "kernel-64k-core",
    "kernel-rt-64k-core",
    "kernel-debug-core",
    "kernel-rt-debug-core",
    "kernel-64k-debug-core",
    "kernel-16k-core",
    "kernel-automotive-core",
    "kernel-uek-core",
    "kernel-uek64k-core",
    "kernel-uek",
    "kernel-lt-core",
    "kernel-ml-core",
    "kernel-lt",
    "kernel-ml",
    "kernel-default",
    "kernel-default-base",
    "kernel-azure",
    "kernel-64kb",
    "kernel-longterm",
    "kernel-preempt",
    "kernel-rt",
    "kernel-64k",
    "kernel-debug",
    "kernel6.12",
    "kernel",
    "linux-esx",
    "linux-rt",
    "linux-aws",
    "linux",
];

/// Packages after whose update a boot is due, as `needs-restarting -r` has them, and the reason each is.
const REBOOT: [(&str, &str); 14] = [
    ("dbus", "dbus"),
    ("dbus-broker", "dbus"),
    ("dbus-daemon", "dbus"),
    ("glibc", "glibc"),
    ("gnutls", "gnutls"),
    ("libopenssl1_1", "openssl"),
    ("libopenssl3", "openssl"),
    ("linux-firmware", "linux-firmware"),
    ("microcode_ctl", "microcode_ctl"),
    ("openssl", "openssl"),
    ("openssl-libs", "openssl"),
    ("systemd", "systemd"),
    ("udev", "systemd"),
    ("dbus-1", "dbus"),
];

/// What all of these names begin with.
const BEGINNINGS: [&str; 10] = [
    "kernel",
    "linux",
    "dbus",
    "glibc",
    "gnutls",
    "libopenssl",
    "microcode_ctl",
    "openssl",
    "systemd",
    "udev",
];

/// Why a boot is due once this package was updated; `None` for nearly all.
pub(super) fn reboot_reason(name: &str) -> Option<&'static str> {
    // Asked of every package.
    if !BEGINNINGS.iter().any(|begin| name.starts_with(begin)) {
        return None;
    }
    if KERNELS.contains(&name) {
        return Some("kernel");
    }
    let of = REBOOT.iter().find(|(package, _)| *package == name);
    of.map(|(_, reason)| *reason)
}

/// Of which packages details are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DetailsOf {
    /// Of none: nobody asks.
    Nothing,
    /// Of those after whose update a boot is due.
    Reboot,
    /// Of all.
    Everything,
}

impl DetailsOf {
    pub(super) fn has(self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Reboot => reboot_reason(name).is_some(),
            Self::Everything => true,
        }
    }
}

/// Facts about the packages and, where `live` is given, about the machine that runs from them. `installed` are the
/// packages that [`reboot_reason`] knows, with the seconds since 1970 at which each was installed.
pub(super) fn facts<'a>(
    packages: &[Package],
    installed: impl Iterator<Item = (&'a Package, u32)>,
    live: Option<&LiveSystem>,
) -> Facts {
    let mut facts = Facts::new();
    let mut add = |name: &str, value: String| drop(facts.insert(name.to_owned(), value));
    add(facts::RPMDB_PACKAGES, packages.len().to_string());
    let running = live.map(|live| live.kernel.as_str());
    if let Some(newest) = newest_kernel(packages, running) {
        add(facts::KERNEL_INSTALLED, kernel_version(newest));
    }
    let Some(live) = live else { return facts };
    add(facts::KERNEL_RUNNING, live.kernel.clone());
    add(
        facts::REBOOT_NEEDED,
        reboot_needed(installed, live.booted_at),
    );
    add(facts::BOOTED_AT, shown(live.booted_at));
    if let Some(id) = &live.boot_id {
        add(facts::BOOT_ID, id.clone());
    }
    facts
}

fn shown(seconds: u64) -> String {
    let at = crate::clock::WallTime::from_unix_ms(seconds.saturating_mul(1000));
    at.to_string()
}

/// `no`, or the reasons, sorted and joined by commas.
fn reboot_needed<'a>(
    installed: impl Iterator<Item = (&'a Package, u32)>,
    booted_at: u64,
) -> String {
    let later = installed.filter(|(_, at)| u64::from(*at) > booted_at);
    let mut reasons: Vec<&str> = later
        .filter_map(|(package, _)| reboot_reason(&package.name))
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    match reasons.is_empty() {
        true => "no".to_owned(),
        false => reasons.join(","),
    }
}

/// The newest kernel of the flavour that runs; of the first flavour that is installed where none runs, or
/// where the package of the running one is gone.
fn newest_kernel<'a>(packages: &'a [Package], running: Option<&str>) -> Option<&'a Package> {
    let rank = |package: &Package| KERNELS.iter().position(|name| *name == package.name);
    let kernels = || {
        packages
            .iter()
            .filter_map(|p| rank(p).map(|rank| (rank, p)))
    };
    let of_running = running.and_then(|running| {
        let fits = kernels().filter_map(|(rank, p)| Some((fit(p, running)?, rank, p)));
        fits.min_by_key(|(fit, rank, _)| (*fit, *rank))
            .map(|(_, rank, _)| rank)
    });
    let flavour = of_running.or_else(|| kernels().map(|(rank, _)| rank).min())?;
    let of_flavour = kernels().filter(|(rank, _)| *rank == flavour);
    of_flavour
        .map(|(_, package)| package)
        .max_by(|a, b| order(a, b))
}

/// How well a package fits the kernel that runs: 0 where the flavour is its own, 1 where only the version is.
fn fit(package: &Package, running: &str) -> Option<u8> {
    let version = format!("{}-{}", package.evr.version, package.evr.release);
    let arch = package.arch.as_deref().unwrap_or_default();
    let rest = match running.strip_prefix(&version) {
        Some(rest) => rest,
        None => {
            // SUSE: the last number of the release counts rebuilds, which the kernel does not know.
            let (short, _) = version.rsplit_once('.')?;
            let rest = running.strip_prefix(short)?;
            rest.starts_with('-').then_some(rest)?
        }
    };
    let rest = rest
        .strip_prefix('.')
        .map_or(rest, |rest| rest.strip_prefix(arch).unwrap_or(rest));
    let flavour = rest.strip_prefix(['+', '-', '.']).unwrap_or(rest);
    let own = package.name.split_once('-').map_or("", |(_, own)| own);
    let own = own
        .strip_suffix("-core")
        .unwrap_or(if own == "core" { "" } else { own });
    Some(u8::from(own != flavour))
}

/// rpm's order of versions.
fn order(a: &Package, b: &Package) -> Ordering {
    let [x, y] = [a, b].map(|package| package.evr.to_string());
    let (x, y) = (unescape(&x), unescape(&y));
    RpmVersion::parse(&x).compare(&RpmVersion::parse(&y))
}

/// `VERSION-RELEASE.ARCH`, the form of `uname -r` with most distributions.
fn kernel_version(package: &Package) -> String {
    let evr = &package.evr;
    match &package.arch {
        Some(arch) => format!("{}-{}.{arch}", evr.version, evr.release),
        None => format!("{}-{}", evr.version, evr.release),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Evr;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.into(),
            evr: Evr::parse(version),
            arch: Some("x86_64".into()),
            ..Package::default()
        }
    }

    fn live(kernel: &str) -> LiveSystem {
        LiveSystem {
            kernel: kernel.into(),
            boot_id: Some("b".into()),
            booted_at: 1_700_000_000,
        }
    }

    #[test]
    fn the_installed_kernel_is_the_newest_of_the_flavour_that_runs() {
        let rhel = [
            package("kernel", "5.14.0-503.el9"),
            package("kernel-core", "5.14.0-427.el9"),
            package("kernel-core", "5.14.0-503.el9"),
            package("kernel-core", "5.14.0-70.el9"),
            package("kernel-rt-core", "5.14.0-427.el9"),
            package("kernel-rt-core", "5.14.0-503.1.el9"),
            package("kernel-headers", "6.0-1.el9"),
        ];
        let suse = [
            package("kernel-default", "5.14.21-150500.55.19.1"),
            package("kernel-default", "5.14.21-150500.55.7.1"),
            package("kernel-rt", "6.0-1.1"),
        ];
        let oracle = [
            package("kernel-core", "5.14.0-503.el9"),
            package("kernel-uek-core", "5.15.0-200.131.27.el9uek"),
            package("kernel-uek-core", "5.15.0-300.1.el9uek"),
        ];
        let photon = [
            package("linux", "6.1.75-2.ph5"),
            package("linux-esx", "6.1.75-3.ph5"),
            package("linux-esx", "6.1.75-2.ph5"),
        ];
        for (packages, running, newest) in [
            (&rhel[..], "5.14.0-427.el9.x86_64", "5.14.0-503.el9.x86_64"),
            (&rhel, "5.14.0-427.el9.x86_64+rt", "5.14.0-503.1.el9.x86_64"),
            // Its package is gone.
            (&rhel, "5.14.0-1.el9.x86_64", "5.14.0-503.el9.x86_64"),
            (
                &suse,
                "5.14.21-150500.55.7-default",
                "5.14.21-150500.55.19.1.x86_64",
            ),
            (
                &oracle,
                "5.15.0-200.131.27.el9uek.x86_64",
                "5.15.0-300.1.el9uek.x86_64",
            ),
            (&photon, "6.1.75-2.ph5-esx", "6.1.75-3.ph5.x86_64"),
            (&photon, "6.1.75-2.ph5", "6.1.75-2.ph5.x86_64"),
        ] {
            let found = facts(packages, std::iter::empty(), Some(&live(running)));
            assert_eq!(found[facts::KERNEL_INSTALLED], newest, "{running}");
            assert_eq!(found[facts::KERNEL_RUNNING], running);
        }
    }

    #[test]
    fn a_root_that_does_not_run_has_no_facts_of_a_machine() {
        let packages = [
            package("kernel-core", "5.14.0-503.el9"),
            package("kernel-rt-core", "6-1"),
        ];
        let found = facts(&packages, std::iter::empty(), None);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, [facts::KERNEL_INSTALLED, facts::RPMDB_PACKAGES]);
        assert_eq!(found[facts::KERNEL_INSTALLED], "5.14.0-503.el9.x86_64");
        assert_eq!(found[facts::RPMDB_PACKAGES], "2");
        let none = facts(&[package("bash", "5-1")], std::iter::empty(), None);
        assert_eq!(none.get(facts::KERNEL_INSTALLED), None);
    }

    #[test]
    fn every_package_that_asks_for_a_boot_has_its_reason() {
        for name in KERNELS {
            assert_eq!(reboot_reason(name), Some("kernel"), "{name}");
        }
        for (name, reason) in [
            ("dbus", "dbus"),
            ("dbus-1", "dbus"),
            ("dbus-broker", "dbus"),
            ("dbus-daemon", "dbus"),
            ("glibc", "glibc"),
            ("gnutls", "gnutls"),
            ("libopenssl1_1", "openssl"),
            ("libopenssl3", "openssl"),
            ("linux-firmware", "linux-firmware"),
            ("microcode_ctl", "microcode_ctl"),
            ("openssl", "openssl"),
            ("openssl-libs", "openssl"),
            ("systemd", "systemd"),
            ("udev", "systemd"),
        ] {
            assert_eq!(reboot_reason(name), Some(reason), "{name}");
        }
        for name in ["bash", "kernel-headers", "glibc-common", "systemd-udev"] {
            assert_eq!(reboot_reason(name), None, "{name}");
        }
    }

    #[test]
    fn a_boot_is_due_for_what_was_installed_after_the_last_one() {
        let live = live("5.14.0-427.el9.x86_64");
        let names = [
            "openssl-libs",
            "bash",
            "glibc",
            "kernel-core",
            "openssl",
            "systemd",
        ];
        let packages = names.map(|name| package(name, "1-1"));
        let at = |times: [u32; 6]| {
            let found = facts(&packages, packages.iter().zip(times), Some(&live));
            found[facts::REBOOT_NEEDED].clone()
        };
        let (before, after) = (1_699_999_999, 1_700_000_001);
        assert_eq!(at([before; 6]), "no");
        assert_eq!(at([1_700_000_000; 6]), "no");
        assert_eq!(at([before, after, before, before, before, before]), "no");
        assert_eq!(at([after; 6]), "glibc,kernel,openssl,systemd");
        assert_eq!(
            at([before, before, before, before, before, after]),
            "systemd"
        );
        let found = facts(&packages, std::iter::empty(), Some(&live));
        assert_eq!(found[facts::BOOTED_AT], "2023-11-14T22:13:20.000Z");
        assert_eq!(found[facts::BOOT_ID], "b");
    }
}
