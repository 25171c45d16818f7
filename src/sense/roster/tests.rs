//! Tests of the roster.

use super::stamp::UNSETTLED;
use super::*;
use std::fs;
use std::time::{Duration, SystemTime};

/// Loss prevented: an edit that is never noticed, or one slip that makes all guests disappear.
#[test]
fn every_edit_is_noticed_and_a_bad_one_keeps_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.toml");
    let mut roster = Roster::new(vec![
        RosterSource::Fixed(vec!["a=unix:/fixed".parse().unwrap()]),
        RosterSource::File(path.clone()),
    ]);
    // As old as a file that nobody touched for long, so that its times are believed.
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        let now = Duration::from_millis(clock::wall_now().unix_ms());
        let old = SystemTime::UNIX_EPOCH + now - 100 * UNSETTLED;
        file.set_modified(old).unwrap();
    };
    let mut guests = |text: Option<&str>| {
        text.inspect(|text| write(text));
        roster.read();
        let KnownGuests { guests, .. } = roster.known();
        let shown = guests.values().map(|e| format!("{}={}", e.vm, e.address));
        (
            shown.collect::<Vec<_>>().join(" "),
            roster.named().errors().count(),
        )
    };
    let entry = |id: &str, address: &str| format!("[[vm]]\nid='{id}'\naddress='{address}'\n");
    let said = |guests: &str, errors: usize| (guests.to_owned(), errors);
    assert_eq!(guests(None), said("a=unix:/fixed", 1));
    let two = entry("b", "unix:/b") + &entry("a", "unix:/other");
    let expected = said("a=unix:/fixed b=unix:/b", 0);
    assert_eq!(guests(Some(&two)), expected);
    assert_eq!(guests(None), expected);
    // Equally long, and equally old: only the inode's own time tells.
    let edited = said("a=unix:/fixed b=unix:/c", 0);
    assert_eq!(guests(Some(&two.replace("/b", "/c"))), edited);
    let bad = said("a=unix:/fixed b=unix:/c", 1);
    assert_eq!(guests(Some(&two.replace("[[vm]]", "[[vn]]"))), bad);
    assert_eq!(guests(None), bad);
    // Cut to nothing, it is no roster without guests.
    assert_eq!(guests(Some("")), bad);
    assert_eq!(guests(Some(&two)), expected);
    assert_eq!(guests(Some("# none\n")), said("a=unix:/fixed", 0));
    assert_eq!(guests(Some(&two)), expected);
    assert_eq!(guests(Some("vm = []")), said("a=unix:/fixed", 0));
}

#[test]
fn a_source_that_was_never_read_leaves_the_roster_incomplete_and_names_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("late.toml");
    let mut roster = Roster::new(vec![
        RosterSource::Fixed(vec!["a=unix:/a".parse().unwrap()]),
        RosterSource::File(path.clone()),
    ]);
    roster.read();
    assert!(!roster.known().is_complete);
    fs::write(&path, "[[vm]]\nid='b'\naddress='unix:/b'\n").unwrap();
    assert!(roster.read() && roster.known().is_complete);
    let named = roster.named();
    let source = |vm: &str| named.source_of(&vm.parse().unwrap()).unwrap();
    assert_eq!(source("a").name, "settings");
    assert_eq!(source("b").name, path.display().to_string());
    assert!(source("b").read_at.is_some());
    assert_eq!(
        named.sources.iter().map(|s| s.guests).collect::<Vec<_>>(),
        [1, 1]
    );
    // Once read, an error later does not take guests away.
    fs::remove_file(&path).unwrap();
    assert!(!roster.read());
    let known = roster.known();
    assert!(known.is_complete && known.guests.len() == 2);
    assert_eq!(roster.named().errors().count(), 1);
}

#[test]
fn a_guest_that_two_sources_name_is_the_firsts_and_is_counted() {
    let fixed = |text: &str| RosterSource::Fixed(vec![text.parse().unwrap()]);
    let mut roster = Roster::new(vec![fixed("a=unix:/first"), fixed("a=unix:/second")]);
    roster.read();
    let guests = roster.known().guests;
    let addresses: Vec<_> = guests.values().map(|e| e.address.to_string()).collect();
    assert_eq!(addresses, ["unix:/first"]);
    let counts = |s: &SourceStatus| (s.guests, s.named_before);
    let named = roster.named();
    let counted: Vec<_> = named.sources.iter().map(counts).collect();
    assert_eq!(counted, [(1, 0), (0, 1)]);
    let source = named.source_of(&"a".parse().unwrap()).unwrap();
    assert!(std::ptr::eq(source, &named.sources[0]));
    assert_eq!(named.source_of(&"b".parse().unwrap()), None);
    let said = "guest a is unix:/first in settings and unix:/second in settings: the first counts";
    assert_eq!(roster.named_before.iter().collect::<Vec<_>>(), [said]);
}

/// Loss prevented: a sensor with ten thousand guests that compares all of them every other second.
#[test]
fn a_source_that_is_read_again_and_says_the_same_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.toml");
    // Written just now: its times prove nothing yet, so that it is read each time.
    fs::write(&path, "[[vm]]\nid='b'\naddress='unix:/b'\n").unwrap();
    let mut roster = Roster::new(vec![
        RosterSource::Fixed(vec!["a=unix:/a".parse().unwrap()]),
        RosterSource::File(path.clone()),
    ]);
    assert!(roster.read());
    let first = roster.known();
    assert!(!roster.read());
    let again = roster.known();
    let mut pairs = first.guests.values().zip(again.guests.values());
    assert!(pairs.all(|(a, b)| Arc::ptr_eq(a, b)));
    fs::write(&path, "[[vm]]\nid='b'\naddress='unix:/c'\n").unwrap();
    assert!(roster.read());
    assert!(!roster.read());
}

#[test]
fn other_sources_keep_what_is_known_of_those_that_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.toml");
    fs::write(&path, "[[vm]]\nid='b'\naddress='unix:/b'\n").unwrap();
    let fixed = |text: &str| RosterSource::Fixed(vec![text.parse().unwrap()]);
    let mut roster = Roster::new(vec![fixed("a=unix:/a"), RosterSource::File(path.clone())]);
    roster.read();
    fs::remove_file(&path).unwrap();
    roster.replace_sources(vec![fixed("c=unix:/c"), RosterSource::File(path)]);
    roster.read();
    let guests = roster.known().guests;
    assert_eq!(
        guests.keys().map(VmId::as_str).collect::<Vec<_>>(),
        ["b", "c"]
    );
}
