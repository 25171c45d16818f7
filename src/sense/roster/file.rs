//! Guests in a TOML file.
//!
//! ```toml
//! [[vm]]
//! id = "web-1"
//! address = "vsock:3:818"
//! guest_id = "0123456789abcdef0123456789abcdef"   # optional: only this machine
//! ```

use super::RosterEntry;
use super::stamp::read_text;
use crate::report::VmId;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

/// Longest roster that is read, in bytes: room for a hundred thousand guests.
const LONGEST: u64 = 32 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    vm: Vec<Vm>,
}

/// A `[[vm]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vm {
    id: String,
    address: String,
    guest_id: Option<String>,
}

/// Reads the guests in `path`; an error names the file and the guest.
pub fn read(path: &Path) -> Result<Vec<RosterEntry>, String> {
    let in_file = |error: String| format!("{}: {error}", path.display());
    let text = read_text(path, LONGEST).map_err(|error| in_file(error.to_string()))?;
    if text.is_empty() {
        // Cut to nothing by whoever is about to write it, or by a full disk.
        let said = "is empty, and not taken for a roster without guests: write `vm = []`";
        return Err(in_file(said.into()));
    }
    parse(&text).map_err(in_file)
}

/// Reads the guests in the text of a file.
pub fn parse(text: &str) -> Result<Vec<RosterEntry>, String> {
    let file: File = toml::from_str(text).map_err(|error| in_one_line(text, &error))?;
    checked(file.vm)
}

/// What is wrong with a TOML file, and on which line.
pub fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) if !text.is_empty() => {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {message}")
        }
        _ => message,
    }
}

/// Reads the guests in the `vm` table of another file.
pub fn from_table(table: &toml::Value) -> Result<Vec<RosterEntry>, String> {
    let is_table = |entry: &toml::Value| entry.is_table();
    if table
        .as_array()
        .is_some_and(|all| !all.iter().all(is_table))
    {
        let said = "`vm` is a list of strings (\"ID=ADDR\") or of tables ([[vm]]), not of both";
        return Err(said.into());
    }
    let vms = Vec::<Vm>::deserialize(table.clone()).map_err(|error| in_one_line("", &error))?;
    checked(vms)
}

/// The first id that stands twice in a list of guests.
pub fn named_twice(entries: &[RosterEntry]) -> Option<&VmId> {
    let mut seen = BTreeSet::new();
    entries
        .iter()
        .map(|entry| &entry.vm)
        .find(|vm| !seen.insert(*vm))
}

fn checked(vms: Vec<Vm>) -> Result<Vec<RosterEntry>, String> {
    let entries = vms
        .into_iter()
        .map(|vm| {
            let of_vm = |error: String| format!("vm {:?}: {error}", vm.id);
            let entry = RosterEntry {
                guest_id: match &vm.guest_id {
                    Some(id) => Some(id.parse().map_err(|e| of_vm(format!("{e}")))?),
                    None => None,
                },
                ..RosterEntry::new(
                    vm.id.parse().map_err(|e| format!("{e}"))?,
                    vm.address.parse().map_err(of_vm)?,
                )
            };
            Ok(entry)
        })
        .collect::<Result<Vec<_>, String>>()?;
    match named_twice(&entries) {
        Some(vm) => Err(format!("vm {:?}: is there twice", vm.as_str())),
        None => Ok(entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_an_id_an_address_and_perhaps_a_machine() {
        let text = "[[vm]]\nid = 'a'\naddress = 'unix:/a'\n[[vm]]\nid = 'b'\naddress = 'vsock:3:818'\nguest_id = '0123456789abcdef0123456789ABCDEF'\n";
        let entries = parse(text).unwrap();
        assert_eq!(entries[0].address.to_string(), "unix:/a");
        let machine = entries[1].guest_id.as_ref().unwrap();
        assert_eq!(machine.as_str(), "0123456789abcdef0123456789abcdef");
    }

    #[test]
    fn a_list_of_strings_and_tables_is_refused_in_words_of_the_file() {
        let mixed = "vm = ['a=unix:/a', { id = 'b', address = 'unix:/b' }]";
        let table: toml::Value = toml::from_str::<toml::Table>(mixed).unwrap()["vm"].clone();
        let error = from_table(&table).unwrap_err();
        assert!(error.contains("not of both"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_guest_it_is_about() {
        for (text, said) in [
            (
                "[[vm]]\nid = 'a'\naddress = 'tcp:1'\n",
                "vm \"a\": \"tcp:1\" is not an address",
            ),
            ("[[vm]]\nid = 'a b'\naddress = 'unix:/a'\n", "not a VM id"),
            (
                "[[vm]]\nid = 'a'\naddress = 'unix:/a'\nport = 1\n",
                "unknown field",
            ),
            (
                "[[vm]]\nid = 'a'\naddress = 'unix:/a'\nguest_id = 'x'\n",
                "not a guest id",
            ),
            (
                "[[vm]]\nid='a'\naddress='unix:/a'\n[[vm]]\nid='a'\naddress='unix:/b'\n",
                "twice",
            ),
            ("[[vm]", "expected"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
