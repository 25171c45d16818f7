//! Guests as the sockets in a directory: `NAME.sock`, or any name, is guest `NAME`.

use super::{Listing, RosterEntry};
use crate::report::VmId;
use crate::transport::DialAddress;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Reads the sockets in `directory`: with `port`, they are the hypervisor's, and the agent listens
/// on that VSOCK port behind them; without, agents listen on them.
///
/// # Errors
/// The directory cannot be read.
pub fn read(directory: &Path, port: Option<u32>) -> Result<Listing, String> {
    let in_directory = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut names = BTreeMap::new();
    for file in fs::read_dir(directory).map_err(in_directory)? {
        let file = file.map_err(in_directory)?;
        // A socket that went away meanwhile is no guest.
        let is_socket = file.file_type().is_ok_and(|kind| kind.is_socket());
        names.insert(file.file_name(), is_socket);
    }
    let mut listing = Listing::default();
    let mut seen = BTreeSet::new();
    for (file_name, is_socket) in &names {
        let path = directory.join(file_name);
        let mut remark = |why: &str| {
            listing.remarks.insert(format!("{}: {why}", path.display()));
        };
        let Some(name) = file_name.to_str() else {
            remark("left out: its name is not UTF-8");
            continue;
        };
        if !is_socket {
            if name.ends_with(".sock") {
                remark("left out: it is no socket");
            }
            continue;
        }
        let is_there = |name: &str| names.contains_key(std::ffi::OsStr::new(name));
        if way_out_of(name).is_some_and(is_there) {
            remark("left out: a hypervisor hands over connections there that a guest makes");
            continue;
        }
        let Ok(vm) = name.strip_suffix(".sock").unwrap_or(name).parse::<VmId>() else {
            remark("left out: its name is no id: 1 to 128 of letters, digits and . _ : @ + -");
            continue;
        };
        if !seen.insert(vm.clone()) {
            let why = format!("{}: another socket is guest {vm}, too", path.display());
            listing.error.get_or_insert(why);
            continue;
        }
        let address = match port {
            Some(port) => DialAddress::Hybrid { path, port },
            None => DialAddress::Unix(path),
        };
        listing.entries.push(RosterEntry::new(vm, address));
    }
    listing.entries.sort_by(|a, b| a.vm.cmp(&b.vm));
    Ok(listing)
}

/// `NAME_PORT` is where a hypervisor with the socket `NAME` hands over connections that a guest makes.
fn way_out_of(name: &str) -> Option<&str> {
    let (of, port) = name.rsplit_once('_')?;
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    is_port.then_some(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn every_socket_is_a_guest_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let _sockets: Vec<_> = [
            "web-1.sock",
            "db",
            "db_1",
            "web-1.sock_1024",
            "host_9",
            "no name.sock",
        ]
        .map(|name| UnixListener::bind(dir.path().join(name)).unwrap())
        .into();
        fs::write(dir.path().join("file.sock"), "").unwrap();
        let found = read(dir.path(), Some(818)).unwrap();
        let names: Vec<_> = found.entries.iter().map(|e| e.vm.as_str()).collect();
        // Nothing is called `host`, so that `host_9` is a name like any other.
        assert_eq!(names, ["db", "host_9", "web-1"]);
        let address = found.entries[2].address.to_string();
        assert!(address.starts_with("hybrid:") && address.ends_with("/web-1.sock:818"));
        assert!(read(&dir.path().join("none"), None).is_err());
        let left_out = ["db_1", "file.sock", "no name.sock", "web-1.sock_1024"];
        assert_eq!(found.remarks.len(), left_out.len());
        for (remark, name) in found.remarks.iter().zip(left_out) {
            assert!(remark.contains(&format!("/{name}: left out")), "{remark}");
        }
        assert_eq!(found.error, None);
    }

    #[test]
    fn two_sockets_for_one_id_are_an_error_and_the_first_counts() {
        let dir = tempfile::tempdir().unwrap();
        let _sockets: Vec<_> = ["web", "web.sock"]
            .map(|name| UnixListener::bind(dir.path().join(name)).unwrap())
            .into();
        let found = read(dir.path(), None).unwrap();
        assert_eq!(found.entries.len(), 1);
        assert!(found.entries[0].address.to_string().ends_with("/web"));
        let error = found.error.unwrap();
        assert!(
            error.ends_with("web.sock: another socket is guest web, too"),
            "{error}"
        );
    }
}
