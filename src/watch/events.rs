//! File systems of which a watch does not see everything.
//!
//! inotify tells of what this kernel does. What another machine, or the host, does to a file on a
//! network or shared file system comes without an event, and a watch there is set without an error.

use nix::sys::statfs::statfs;
use std::path::Path;

/// Why changes of a directory may come without an event; `None` on an ordinary file system.
pub(super) fn missing_for(directory: &Path) -> Option<String> {
    let kind = statfs(directory).ok()?.filesystem_type();
    // The type is wider than the number in it, and signed on some systems.
    let magic = u32::try_from(kind.0 & 0xffff_ffff).ok()?;
    let name = shared(magic)?;
    Some(format!(
        "{} is on {name}, where others can write without an event",
        directory.display()
    ))
}

/// Name of a file system that others may write to, by its number in statfs(2).
fn shared(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x0000_6969 => "nfs",
        0x0000_517b | 0xff53_4d42 | 0xfe53_4d42 => "smb",
        0x0102_1997 => "9p",
        // virtiofs has the number of FUSE.
        0x6573_5546 => "fuse",
        0x00c3_6400 => "ceph",
        0x5346_414f => "afs",
        0x0bd0_0bd0 => "lustre",
        0x0116_1970 => "gfs2",
        0x7461_636f => "ocfs2",
        0x786f_4256 => "vboxsf",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_file_systems_are_known_by_name_and_ordinary_ones_are_fine() {
        assert_eq!(shared(0x6969), Some("nfs"));
        assert_eq!(shared(0x6573_5546), Some("fuse"));
        // ext4, xfs, btrfs, tmpfs, overlayfs.
        for magic in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630] {
            assert_eq!(shared(magic), None);
        }
        assert_eq!(missing_for(Path::new("/proc")), None);
    }
}
