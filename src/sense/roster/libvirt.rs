//! Guests as libvirt runs them on this host: its own state files, one XML document per domain.
//!
//! The format is libvirt's internal one, so unknown elements are normal. A document that exists but
//! cannot be read or understood, or is half-written, keeps what it said last. The context id is only in a
//! running domain's document; it is an address that the next start may change, and another domain may
//! have had before.

use super::stamp::{self, read_text};
use super::{Listing, RosterEntry};
use crate::file_stamp::FileStamp;
use crate::transport::{DEFAULT_PORT, DialAddress};
use roxmltree::{Document, Node};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the system's libvirt keeps its running domains.
pub const DIRECTORY: &str = "/run/libvirt/qemu";

/// What an operator does where the service may not read them.
const REMEDY: &str =
    "; the drop-in /usr/share/afferent/sense-libvirt.conf lets the service read them";

/// Longest document that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// The documents of a directory, as each was when it was last understood.
#[derive(Debug, Default)]
pub struct Domains(BTreeMap<PathBuf, KnownGuests>);

#[derive(Debug, Default)]
struct KnownGuests {
    stamp: Option<FileStamp>,
    entry: Option<RosterEntry>,
    remark: Option<&'static str>,
    /// Why it could not be read the last time.
    error: Option<String>,
}

impl Domains {
    /// Reads the running domains that have a VSOCK device: those documents that changed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(&mut self, directory: &Path) -> Result<Listing, String> {
        let in_directory =
            |error: io::Error| format!("{}: {error}{}", directory.display(), remedy(error.kind()));
        let files = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let files = files.map_err(in_directory)?;
        let mut before = std::mem::take(&mut self.0);
        for path in files.into_iter().map(|file| file.path()) {
            if path.extension().is_some_and(|extension| extension == "xml") {
                let known = before.remove(&path).unwrap_or_default();
                if let Some(known) = look_again(&path, known) {
                    self.0.insert(path, known);
                }
            }
        }
        Ok(self.listing(directory))
    }

    fn listing(&self, directory: &Path) -> Listing {
        let known = || self.0.iter();
        let mut listing = Listing {
            entries: known()
                .filter_map(|(_, known)| known.entry.clone())
                .collect(),
            error: None,
            remarks: known()
                .filter_map(|(path, known)| Some(format!("{}: {}", path.display(), known.remark?)))
                .collect(),
        };
        listing.entries.sort_by(|a, b| a.vm.cmp(&b.vm));
        let mut errors = known().filter_map(|(path, known)| Some((path, known.error.as_ref()?)));
        if let Some((path, error)) = errors.next() {
            let (unread, all) = (1 + errors.count(), self.0.len());
            let name = path.file_name().unwrap_or_default().display();
            listing.error = Some(format!(
                "{}: {unread} of {all} domains cannot be read: {name}: {error}",
                directory.display()
            ));
        }
        listing
    }
}

/// What to do about an error of this kind, behind its text.
fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => REMEDY,
        _ => "",
    }
}

/// What is known of a document now; `None`: it is gone.
fn look_again(path: &Path, known: KnownGuests) -> Option<KnownGuests> {
    let stamp = stamp::settled(path);
    if stamp.is_some() && stamp == known.stamp && known.error.is_none() {
        return Some(known);
    }
    let (error, is_broken) = match read_text(path, LONGEST) {
        Ok(text) => match domain(&text) {
            Ok(entry) => {
                return Some(KnownGuests {
                    stamp,
                    entry,
                    ..KnownGuests::default()
                });
            }
            Err(Unusable::Other(remark)) => {
                return Some(KnownGuests {
                    stamp,
                    remark: Some(remark),
                    ..KnownGuests::default()
                });
            }
            Err(Unusable::Broken(error)) => (error, true),
        },
        Err(error) if error.is_gone() => return None,
        Err(error) => (format!("{error}{}", remedy(error.kind())), false),
    };
    // It may be in the middle of being written.
    let is_being_written = is_broken && stamp.is_none() && known.error.is_none();
    Some(KnownGuests {
        stamp: None,
        error: (!is_being_written).then_some(error),
        ..known
    })
}

/// Why a document names no guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not what libvirt writes, or not all of it.
    Broken(String),
    /// It is something else, or has a name that is no id.
    Other(&'static str),
}

/// The guest in one document, if it has a context id. Its name is that of the domain, or its UUID where
/// the name cannot be an id; the UUID tells whether a domain of that name is still the same one. A domain that is paused, suspended or crashed is a guest all the same: it is
/// not gone before it is shut off.
///
/// # Errors
/// The text is no document of a running domain.
pub fn domain(text: &str) -> Result<Option<RosterEntry>, Unusable> {
    let document = Document::parse(text).map_err(|error| Unusable::Broken(error.to_string()))?;
    let status = document.root_element();
    if !status.has_tag_name("domstatus") {
        return Err(Unusable::Other("left out: it is not the state of a domain"));
    }
    let Some(domain) = child(status, "domain") else {
        return Err(Unusable::Broken("it has no <domain>".into()));
    };
    if status.attribute("state") == Some("shutoff") {
        return Ok(None);
    }
    let vsock = child(domain, "devices").and_then(|devices| child(devices, "vsock"));
    let cid = vsock.and_then(|vsock| child(vsock, "cid")?.attribute("address")?.parse().ok());
    let Some(cid) = cid else {
        return Ok(None);
    };
    let text = |name| {
        child(domain, name)
            .and_then(|node| node.text())
            .map(str::trim)
    };
    let vm = text("name")
        .and_then(|name| name.parse().ok())
        .or_else(|| text("uuid").and_then(|uuid| uuid.parse().ok()))
        .ok_or(Unusable::Other(
            "left out: neither its name nor its UUID is an id",
        ))?;
    let address = DialAddress::Vsock {
        cid,
        port: DEFAULT_PORT,
    };
    Ok(Some(RosterEntry {
        domain: text("uuid").and_then(|uuid| uuid.parse().ok()),
        ..RosterEntry::new(vm, address)
    }))
}

fn child<'a, 'b>(node: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    node.children().find(|child| child.has_tag_name(name))
}

#[cfg(test)]
mod tests {
    use super::super::stamp::UNSETTLED;
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11";

    const RUNNING: &str = "<domstatus state='running' reason='booted' pid='7690'>\
        <taint flag='x'/><domain type='kvm' id='4'><name>web-1</name>\
        <uuid>0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11</uuid>\
        <devices><disk/><vsock model='virtio'><cid auto='yes' address='3'/>\
        <alias name='vsock0'/></vsock></devices></domain></domstatus>";

    #[test]
    fn a_domain_with_a_context_id_is_a_guest_until_it_is_shut_off() {
        for state in [
            "running",
            "paused",
            "pmsuspended",
            "blocked",
            "shutdown",
            "crashed",
        ] {
            let text = RUNNING.replace("'running'", &format!("'{state}'"));
            let entry = domain(&text).unwrap().unwrap();
            assert_eq!(entry.vm.as_str(), "web-1", "{state}");
            assert_eq!(entry.address.to_string(), "vsock:3:818");
            assert_eq!(entry.domain.unwrap().to_string(), UUID);
        }
        let odd = domain(&RUNNING.replace("web-1", "web 1")).unwrap().unwrap();
        assert_eq!(odd.vm.as_str(), UUID);
        // A document without one, or with one that is none, names its guest all the same.
        for uuid in ["", "no-uuid"] {
            let entry = domain(&RUNNING.replace(UUID, uuid)).unwrap().unwrap();
            assert_eq!((entry.vm.as_str(), entry.domain), ("web-1", None));
        }
    }

    #[test]
    fn what_is_off_or_has_no_context_id_is_no_guest_and_what_is_broken_is_an_error() {
        for (from, to) in [
            ("running", "shutoff"),
            ("address='3'", ""),
            ("vsock", "vsick"),
        ] {
            assert_eq!(domain(&RUNNING.replace(from, to)), Ok(None), "{to}");
        }
        let half = domain(&RUNNING.replace("</domstatus>", ""));
        assert!(matches!(half, Err(Unusable::Broken(_))), "{half:?}");
        let configured = RUNNING.replace("domstatus", "domain");
        assert!(matches!(domain(&configured), Err(Unusable::Other(_))));
        let nameless = RUNNING
            .replace("web-1", "")
            .replace("<uuid>", "<uuid> no id ");
        assert!(matches!(domain(&nameless), Err(Unusable::Other(_))));
    }

    /// Loss prevented: a guest that disappears because its document cannot be read for a moment.
    #[test]
    fn a_document_that_cannot_be_read_keeps_its_guest_and_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut domains = Domains::default();
        let mut read = || {
            let listing = domains.read(dir.path()).unwrap();
            let names = listing.entries.iter().map(|e| e.vm.to_string());
            (names.collect::<Vec<_>>().join(" "), listing.error)
        };
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str, is_old: bool| {
            fs::write(path(name), text).unwrap();
            let file = fs::File::options().append(true).open(path(name)).unwrap();
            let old = std::time::SystemTime::now() - 10 * UNSETTLED;
            let now = std::time::SystemTime::now();
            file.set_modified(if is_old { old } else { now }).unwrap();
        };
        write("a.xml", RUNNING, true);
        write("b.xml", &RUNNING.replace("web-1", "db"), true);
        write("a.pid", "1", true);
        assert_eq!(read(), ("db web-1".into(), None));
        // Just being written: nothing to tell yet.
        write("b.xml", "<domstatus state='run", false);
        assert_eq!(read(), ("db web-1".into(), None));
        write("b.xml", "<domstatus state='run", true);
        let (names, error) = read();
        let error = error.unwrap();
        assert_eq!(names, "db web-1");
        assert!(
            error.contains("1 of 2 domains cannot be read: b.xml: "),
            "{error}"
        );
        fs::remove_file(path("b.xml")).unwrap();
        fs::create_dir(path("b.xml")).unwrap();
        assert_eq!(read().0, "db web-1");
        fs::remove_dir(path("b.xml")).unwrap();
        assert_eq!(read(), ("web-1".into(), None));
        // The directory itself.
        fs::rename(dir.path(), dir.path().with_extension("away")).unwrap();
        assert!(domains.read(dir.path()).is_err());
        fs::rename(dir.path().with_extension("away"), dir.path()).unwrap();
        assert_eq!(domains.read(dir.path()).unwrap().entries.len(), 1);
    }

    #[test]
    fn a_document_that_did_not_change_is_not_parsed_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.xml");
        fs::write(&path, RUNNING).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - 10 * UNSETTLED)
            .unwrap();
        let mut domains = Domains::default();
        assert_eq!(domains.read(dir.path()).unwrap().entries.len(), 1);
        // What is known would be lost by parsing it.
        let known = domains.0.values_mut().next().unwrap();
        let entry = known.entry.as_mut().unwrap();
        entry.vm = "from-memory".parse().unwrap();
        assert_eq!(
            domains.read(dir.path()).unwrap().entries[0].vm.as_str(),
            "from-memory"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = domain(&text);
        }
    }
}
