//! Which machine a root is of, as its own files say it; never the machine that looks at it.

use crate::report::GuestId;
use crate::root::read_text;
use std::path::Path;

/// The name in `etc/hostname` (hostname(5)): its first line that is no comment. `None` where there is none,
/// or it cannot be read.
pub fn host_name(root: &Path) -> Option<String> {
    let text = read_text(root, "etc/hostname").ok()?;
    let mut lines = text.lines().map(str::trim);
    let name = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    Some(name.to_owned())
}

/// The id of the guest from `etc/machine-id`; `None` where there is none, as in an image that never ran.
pub fn guest_id(root: &Path) -> Option<GuestId> {
    let text = read_text(root, "etc/machine-id").ok()?;
    let id = text.trim();
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| GuestId::of_machine(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_root_has_the_name_and_the_id_that_its_own_files_say() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        assert_eq!((host_name(dir.path()), guest_id(dir.path())), (None, None));
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("hostname"), "\n# ours\n web-1.example \nmore\n").unwrap();
        fs::write(etc.join("machine-id"), "uninitialized\n").unwrap();
        assert_eq!(host_name(dir.path()).as_deref(), Some("web-1.example"));
        assert_eq!(guest_id(dir.path()), None);
        let id = "0123456789abcdef0123456789abcdef";
        fs::write(etc.join("machine-id"), format!("{id}\n")).unwrap();
        assert_eq!(guest_id(dir.path()), Some(GuestId::of_machine(id)));
        fs::write(etc.join("hostname"), "\n#\n").unwrap();
        assert_eq!(host_name(dir.path()), None);
    }
}
