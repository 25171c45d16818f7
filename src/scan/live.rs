//! The machine that runs from a root, as its kernel and its clocks tell: only where the root is its own.

use super::running::LiveSystem;
use crate::clock;
use crate::root::read_text;
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use uuid::Uuid;

/// The boot id, for a service that may not see where the kernel tells it; systemd gives it to its units.
const VARIABLE: &str = "BOOT_ID";

/// What this machine says of itself, when `root` is its own.
///
/// Read once a process: the time of the boot is the time of day less the time since, and would move with every
/// correction of the clock.
pub(super) fn system(root: &Path) -> Option<&'static LiveSystem> {
    static LIVE: OnceLock<Option<LiveSystem>> = OnceLock::new();
    let is_own = root.canonicalize().is_ok_and(|root| root == Path::new("/"));
    LIVE.get_or_init(read).as_ref().filter(|_| is_own)
}

fn read() -> Option<LiveSystem> {
    let kernel = uname().ok()?.release().to_str()?.to_owned();
    let up = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let booted_at = clock::wall_now().before(up).unix_ms() / 1000;
    let told = read_text(Path::new("/"), "proc/sys/kernel/random/boot_id").ok();
    let boot_id = told.or_else(|| std::env::var(VARIABLE).ok());
    Some(LiveSystem {
        kernel,
        boot_id: boot_id.as_deref().and_then(id),
        booted_at,
    })
}

/// In the form that the kernel writes; systemd leaves the dashes out.
fn id(text: &str) -> Option<String> {
    let id = Uuid::try_parse(text.trim()).ok()?;
    Some(id.hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_has_one_form() {
        let shown = "3e671687-395b-41f5-a30f-a58921a69b79";
        for text in [
            "3e671687395b41f5a30fa58921a69b79",
            "3e671687-395b-41f5-a30f-a58921a69b79\n",
        ] {
            assert_eq!(id(text).as_deref(), Some(shown));
        }
        assert_eq!(id("x"), None);
    }

    #[test]
    fn only_the_root_of_this_machine_is_a_live_one() {
        let live = system(Path::new("/")).unwrap();
        assert_eq!(system(Path::new("/usr/..")), Some(live));
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(live.kernel, release.trim());
        assert!(live.booted_at > 0 && live.booted_at < clock::wall_now().unix_ms() / 1000);
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(system(elsewhere.path()), None);
    }
}
