//! Guests as the sockets in a directory: `NAME.sock`, or any name, is guest `NAME`.

use super::Entry;
use crate::transport::DialAddress;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Reads the sockets in `directory`: with `port`, they are the hypervisor's, and the agent listens
/// on that VSOCK port behind them; without, agents listen on them.
pub fn read(directory: &Path, port: Option<u32>) -> Result<Vec<Entry>, String> {
    let in_directory = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut entries = Vec::new();
    for file in fs::read_dir(directory).map_err(in_directory)? {
        let file = file.map_err(in_directory)?;
        // A socket that went away meanwhile is no guest.
        let is_socket = file.file_type().is_ok_and(|kind| kind.is_socket());
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(vm) = (is_socket && !is_way_out(&name))
            .then(|| name.strip_suffix(".sock").unwrap_or(&name).parse().ok())
            .flatten()
        else {
            continue;
        };
        let path = file.path();
        entries.push(Entry {
            vm,
            address: match port {
                Some(port) => DialAddress::Hybrid { path, port },
                None => DialAddress::Unix(path),
            },
            guest_id: None,
        });
    }
    entries.sort_by(|a, b| a.vm.cmp(&b.vm));
    Ok(entries)
}

/// `NAME_PORT` is where a hypervisor hands over connections that a guest makes.
fn is_way_out(name: &str) -> bool {
    name.rsplit_once('_')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn every_socket_is_a_guest_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let _sockets: Vec<_> = ["web-1.sock", "db", "web-1.sock_1024", "no name.sock"]
            .map(|name| UnixListener::bind(dir.path().join(name)).unwrap())
            .into();
        fs::write(dir.path().join("file.sock"), "").unwrap();
        let found = read(dir.path(), Some(818)).unwrap();
        let names: Vec<_> = found.iter().map(|e| e.vm.as_str()).collect();
        assert_eq!(names, ["db", "web-1"]);
        let address = found[1].address.to_string();
        assert!(address.starts_with("hybrid:") && address.ends_with("/web-1.sock:818"));
        assert!(read(&dir.path().join("none"), None).is_err());
    }
}
