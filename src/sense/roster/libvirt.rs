//! Guests as libvirt runs them on this host: its own state files, one XML document per domain.
//!
//! The format is libvirt's internal one, so unknown elements are normal, and a document that cannot
//! be read costs that guest alone. The context id is only in a running domain's document; it is an
//! address that the next start may change, and another domain may have had before.

use super::Entry;
use crate::transport::{DEFAULT_PORT, DialAddress};
use roxmltree::{Document, Node};
use std::fs;
use std::path::Path;

/// Where the system's libvirt keeps its running domains.
pub const DIRECTORY: &str = "/run/libvirt/qemu";

/// Longest document that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// Reads the running domains that have a VSOCK device.
pub fn read(directory: &Path) -> Result<Vec<Entry>, String> {
    let in_directory = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut entries = Vec::new();
    for file in fs::read_dir(directory).map_err(in_directory)? {
        let path = file.map_err(in_directory)?.path();
        if path.extension().is_none_or(|extension| extension != "xml") {
            continue;
        }
        let is_short = fs::metadata(&path).is_ok_and(|meta| meta.len() <= LONGEST);
        match is_short.then(|| fs::read_to_string(&path)) {
            Some(Ok(text)) => entries.extend(domain(&text)),
            // A domain that just ended, or one that is not for us to see.
            other => tracing::debug!(path = %path.display(), ?other, "domain not read"),
        }
    }
    entries.sort_by(|a, b| a.vm.cmp(&b.vm));
    Ok(entries)
}

/// The guest in one document, if it runs and has a context id. Its name is that of the domain, or
/// its UUID where the name cannot be an id.
pub fn domain(text: &str) -> Option<Entry> {
    let document = Document::parse(text).ok()?;
    let status = document.root_element();
    if status.attribute("state") != Some("running") {
        return None;
    }
    let domain = child(status, "domain")?;
    let cid = child(child(child(domain, "devices")?, "vsock")?, "cid")?;
    let cid = cid.attribute("address")?.parse().ok()?;
    let text = |name| {
        child(domain, name)
            .and_then(|node| node.text())
            .map(str::trim)
    };
    let vm = text("name")
        .and_then(|name| name.parse().ok())
        .or_else(|| text("uuid").and_then(|uuid| uuid.parse().ok()))?;
    Some(Entry {
        vm,
        address: DialAddress::Vsock {
            cid,
            port: DEFAULT_PORT,
        },
        guest_id: None,
    })
}

fn child<'a, 'b>(node: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    node.children().find(|child| child.has_tag_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RUNNING: &str = "<domstatus state='running' reason='booted' pid='7690'>\
        <taint flag='x'/><domain type='kvm' id='4'><name>web-1</name>\
        <uuid>0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11</uuid>\
        <devices><disk/><vsock model='virtio'><cid auto='yes' address='3'/>\
        <alias name='vsock0'/></vsock></devices></domain></domstatus>";

    #[test]
    fn a_running_domain_with_a_context_id_is_a_guest() {
        let entry = domain(RUNNING).unwrap();
        assert_eq!(entry.vm.as_str(), "web-1");
        assert_eq!(entry.address.to_string(), "vsock:3:818");
        let odd = domain(&RUNNING.replace("web-1", "web 1")).unwrap();
        assert_eq!(odd.vm.as_str(), "0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11");
    }

    #[test]
    fn what_does_not_run_or_has_no_context_id_is_none() {
        for (from, to) in [
            ("running", "paused"),
            ("address='3'", ""),
            ("vsock", "vsick"),
            ("</domstatus>", ""),
        ] {
            assert_eq!(domain(&RUNNING.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn one_document_that_cannot_be_read_costs_no_other_guest() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.xml"), RUNNING).unwrap();
        fs::write(dir.path().join("b.xml"), "<domstatus state='run").unwrap();
        fs::write(dir.path().join("a.pid"), "1").unwrap();
        assert_eq!(read(dir.path()).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = domain(&text);
        }
    }
}
