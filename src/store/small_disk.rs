//! A small file system of its own, for tests of full disks.

use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Unmounted when dropped.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// With room for so much (`3m`); `None`, and a word about it, where nothing may be mounted.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]);
        let mounted = mount.arg(dir.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: not allowed to mount");
        None
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _ = unmount.arg("-l").arg(self.path()).status();
    }
}
