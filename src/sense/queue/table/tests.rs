//! Tests of the pending table.

use super::*;
use crate::report::{
    Digest, Epoch, Facts, FactsHash, Generation, GuestId, Origin, Package, Report, ReportKey,
    Repository, Trigger,
};
use std::sync::LazyLock;

static NOISE: LazyLock<String> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.alphanumeric())
        .take(150_000)
        .collect()
});

#[test]
fn a_report_its_slot_and_the_known_generation_arrive_together() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(&dir);
        assert!(load(&store).unwrap().slots.is_empty());
        apply(
            &store,
            None,
            &[arrival("a", 1), arrival("b", 1), arrival("a", 2)],
        )
        .unwrap();
    }
    let store = open(&dir);
    let loaded = load(&store).unwrap();
    let known: Vec<_> = loaded
        .guests
        .iter()
        .map(|(_, g)| g.known.unwrap())
        .collect();
    let held: Vec<_> = loaded.slots.iter().map(|(_, s)| s.report).collect();
    assert_eq!(known, [report("a", 2), report("b", 1)]);
    assert_eq!(known, held);
    let read = read(&store, &vm("a")).unwrap().unwrap();
    assert_eq!(read.open(&vm("a")).unwrap().key, report("a", 2).key);
}

/// Otherwise the newer report would be lost with the answer to the older one.
#[test]
fn an_answer_to_an_older_report_leaves_the_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    apply(
        &store,
        None,
        &[arrival("a", 1), arrival("a", 2), clear("a", 1)],
    )
    .unwrap();
    assert!(read(&store, &vm("a")).unwrap().is_some());
    apply(&store, None, &[clear("a", 2)]).unwrap();
    assert!(read(&store, &vm("a")).unwrap().is_none());
    let loaded = load(&store).unwrap();
    assert!(loaded.slots.is_empty());
    let (accepted, _) = loaded.guests[0].1.accepted.unwrap();
    assert_eq!(accepted, report("a", 2));
}

#[test]
fn moving_a_slot_that_holds_another_report_by_now_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut late = slot("a", 1);
    late.dead = Some("refused".into());
    let changes = [
        arrival("a", 2),
        PendingChange::Move {
            sink: SinkName::default(),
            vm: vm("a"),
            slot: late,
        },
    ];
    apply(&store, None, &changes).unwrap();
    assert_eq!(load(&store).unwrap().slots[0].1, slot("a", 2));
}

#[test]
fn a_guest_with_something_pending_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let forget = || PendingChange::Forget { vm: vm("a") };
    apply(&store, None, &[arrival("a", 1), forget()]).unwrap();
    assert_eq!(load(&store).unwrap().guests.len(), 1);
    apply(&store, None, &[clear("a", 1), forget()]).unwrap();
    assert!(load(&store).unwrap().guests.is_empty());
}

#[test]
fn the_highest_time_of_all_documents_stays_whatever_becomes_of_its_guest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    apply(&store, None, &[arrival("a", 5), arrival("b", 2)]).unwrap();
    apply(
        &store,
        None,
        &[clear("a", 5), PendingChange::Forget { vm: vm("a") }],
    )
    .unwrap();
    apply(&store, None, &[arrival("b", 3)]).unwrap();
    assert_eq!(load(&store).unwrap().seen_at, WallTime::from_unix_ms(1005));
}

/// The loss: one byte costs the reports of ten thousand guests, and the file is moved aside.
#[test]
fn a_row_that_cannot_be_read_is_its_guests_failure_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    apply(
        &store,
        None,
        &[arrival("a", 1), arrival("b", 1), arrival("c", 1)],
    )
    .unwrap();
    let spoil = |table: TableDefinition<&str, &[u8]>, vm: &str| {
        store
            .write(|tx| Ok(tx.open_table(table)?.insert(vm, &[2, 0xff][..]).map(drop)?))
            .unwrap();
    };
    spoil(SLOTS, "a");
    spoil(GUESTS, "b");
    let loaded = load(&store).unwrap();
    let known = |id: &str| {
        let row = loaded.guests.iter().find(|(guest, _)| *guest == vm(id));
        row.map(|(_, row)| row.known.is_some())
    };
    assert_eq!(known("a"), Some(false), "its report is asked for again");
    assert_eq!((known("b"), known("c")), (None, Some(true)));
    let slots: Vec<_> = loaded.slots.iter().map(|(vm, _)| vm.as_str()).collect();
    assert_eq!(slots, ["b", "c"]);
    // Both go on as if the row had not been there.
    apply(&store, None, &[arrival("a", 2), clear("b", 1)]).unwrap();
    assert_eq!(load(&store).unwrap().slots.len(), 2);
    spoil(SLOTS, "a");
    apply(&store, None, &[PendingChange::Forget { vm: vm("a") }]).unwrap();
    assert!(read(&store, &vm("a")).unwrap().is_none());
}

#[test]
fn the_report_of_another_guest_is_never_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let PendingChange::Put { slots, guest, .. } = arrival("a", 1) else {
        unreachable!()
    };
    let mixed_up = PendingChange::Put {
        vm: vm("a"),
        slots,
        guest,
        fleet: None,
        report: SealedReport::new(&envelope(&content(1), "b", 1)).unwrap(),
        seen_at: WallTime::default(),
    };
    apply(&store, None, &[mixed_up]).unwrap();
    let read = read(&store, &vm("a")).unwrap().unwrap();
    assert!(read.open(&vm("a")).unwrap_err().is_corrupt());
}

pub(super) fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), "sense.redb", 1 << 20)
        .unwrap()
        .store
}

pub(super) fn vm(id: &str) -> VmId {
    id.parse().unwrap()
}

pub(super) fn clear(id: &str, generation: u32) -> PendingChange {
    PendingChange::Clear {
        sink: SinkName::default(),
        vm: vm(id),
        report: report(id, generation),
        at: Some(WallTime::from_unix_ms(9)),
    }
}

pub(super) fn arrival(id: &str, generation: u32) -> PendingChange {
    let content = content(generation);
    let envelope = envelope(&content, id, generation);
    PendingChange::Put {
        vm: vm(id),
        slots: vec![(SinkName::default(), slot(id, generation))],
        guest: GuestRow {
            known: Some(report(id, generation)),
            ..GuestRow::default()
        },
        fleet: None,
        report: SealedReport::new(&envelope).unwrap(),
        seen_at: envelope.seen_at,
    }
}

pub(super) fn slot(id: &str, generation: u32) -> SlotRow {
    SlotRow {
        report: report(id, generation),
        trigger: Trigger::Reactive,
        generated_at: WallTime::default(),
        since: WallTime::default(),
        packages: 1,
        place: QueuePlace {
            reactive: Some(3),
            routine: None,
        },
        attempts: 0,
        not_before: WallTime::default(),
        demoted: false,
        dead: None,
        last_error: None,
    }
}

pub(super) fn report(id: &str, generation: u32) -> DocumentId {
    let content = content(generation);
    let envelope = envelope(&content, id, generation);
    DocumentId {
        key: envelope.key,
        digest: envelope.digest,
        facts: None,
    }
}

/// Of a few bytes, or some that do not compress: a page of them, or more than a chunk.
pub(super) fn content(generation: u32) -> Report {
    let noise = [0, 5_000, 0, 150_000][generation as usize % 4];
    Report {
        packages: vec![Package {
            name: format!("package-{generation}-{}", &NOISE[..noise]),
            ..Package::default()
        }],
        ..Report::default()
    }
}

pub(super) fn envelope<'a>(report: &'a Report, id: &str, generation: u32) -> Envelope<'a> {
    Envelope {
        vm: vm(id),
        address: "unix:/a".into(),
        guest_id: None,
        key: ReportKey {
            epoch: Epoch::new(1),
            generation: Generation::new(generation).unwrap(),
        },
        digest: report.digest(),
        seen_at: WallTime::from_unix_ms(1000 + u64::from(generation)),
        trigger: Trigger::Reactive,
        generated_at: WallTime::default(),
        agent_version: String::new(),
        facts: Facts::new(),
        report: Some(report.view()),
    }
}

/// Whoever adds a field in place finds that this fails: see `store/row.rs`.
#[test]
fn the_bytes_of_the_second_version_never_change() {
    let packages = vec![
        Package {
            name: "a".into(),
            vendor: Some("v".into()),
            license: Some("l".into()),
            origin: Origin::Repository("b".into()),
            ..Package::default()
        },
        Package::default(),
    ];
    let report = Report {
        packages,
        repositories: vec![Repository::default()],
        package_db: "d".into(),
        ..Report::default()
    };
    let digest = Digest::try_from(&[7; 32][..]).unwrap();
    let key = ReportKey {
        epoch: Epoch::new(77),
        generation: Generation::new(12).unwrap(),
    };
    let document = DocumentId {
        key,
        digest,
        facts: None,
    };
    let guest = GuestRow {
        known: Some(document),
        echo: Echo::Pair {
            key,
            digest: Some(digest),
        },
        guest_id: Some(GuestId::of_machine("m")),
        waits: true,
        generated_at: WallTime::from_unix_ms(1),
        full_at: WallTime::from_unix_ms(2),
        accepted: Some((document, WallTime::from_unix_ms(3))),
        facts: Some(FactsHash::of(&Facts::new())),
        tokens: 4,
        domain: None,
    };
    let slot = SlotRow {
        report: document,
        trigger: Trigger::Reactive,
        generated_at: WallTime::from_unix_ms(1),
        since: WallTime::from_unix_ms(2),
        packages: 3,
        place: QueuePlace {
            reactive: Some(4),
            routine: None,
        },
        attempts: 5,
        not_before: WallTime::from_unix_ms(6),
        demoted: true,
        dead: Some("d".into()),
        last_error: None,
    };
    let envelope = Envelope {
        vm: "web".parse().unwrap(),
        address: "unix:/a".into(),
        guest_id: None,
        key,
        digest,
        seen_at: WallTime::from_unix_ms(9),
        trigger: Trigger::Unknown,
        generated_at: WallTime::from_unix_ms(1),
        agent_version: "0.2.0".into(),
        facts: Facts::new(),
        report: Some(report.view()),
    };
    let expected = [
        "0201014d0c07070707070707070707070707070707070707070707070707070707070707070001014d0c0107070707070707070707070707070707070707070707070707070707070707070120646630366164346333643134333535326438323066316366643062376362623201010201014d0c0707070707070707070707070707070707070707070707070707070707070707000301e3b0c44204",
        "02014d0c0707070707070707070707070707070707070707070707070707070707070707000001020301040005060101016400",
        "020377656207756e69783a2f6100014d0c070707070707070707070707070707070707070707070707070707070707070709020105302e322e300001020161000000000176016c01016200000000000000000000000000000000000100000000016400",
    ]
    .map(bytes);
    let [old_guest, expected @ ..] = expected;
    let written = [
        codec::encode(&slot).unwrap(),
        codec::encode(&envelope).unwrap(),
    ];
    assert_eq!(written, expected);
    assert_eq!(codec::decode::<SlotRow>(&written[0]).unwrap(), slot);
    assert_eq!(
        codec::decode::<Envelope<'_>>(&written[1]).unwrap(),
        envelope
    );
    // The third version of a guest is the second and its domain.
    assert_eq!(codec::decode::<GuestRow>(&old_guest).unwrap(), guest);
    for (domain, more) in [
        (None, "00"),
        (Some(DOMAIN), "01100c9d2b0e7f4e4a348a3c9f4c3a5b1c11"),
    ] {
        let domain = domain.map(|uuid| uuid.parse().unwrap());
        let guest = GuestRow {
            domain,
            ..guest.clone()
        };
        let row = codec::encode(&guest).unwrap();
        assert_eq!(row, [&[3], &old_guest[1..], &bytes(more)].concat());
        assert_eq!(codec::decode::<GuestRow>(&row).unwrap(), guest);
    }
}

const DOMAIN: &str = "0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11";

/// Loss prevented: a consumer is told that a report is unchanged, of a machine that it knows nothing of.
#[test]
fn what_was_accepted_of_another_domain_is_not_kept_for_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let domain = |uuid: &str| Some(uuid.parse().unwrap());
    let learn = |domain| PendingChange::Learn {
        vm: vm("a"),
        guest: GuestRow {
            domain,
            ..GuestRow::default()
        },
    };
    let accepted = || load(&store).unwrap().guests[0].1.accepted.is_some();
    // Of a guest from a file nobody knows what domain it is.
    apply(&store, None, &[arrival("a", 1), clear("a", 1)]).unwrap();
    apply(&store, None, &[learn(domain(DOMAIN))]).unwrap();
    assert!(accepted());
    apply(&store, None, &[learn(domain(DOMAIN))]).unwrap();
    assert!(accepted());
    apply(&store, None, &[learn(domain(&DOMAIN.replace('0', "1")))]).unwrap();
    assert!(!accepted());
}

/// Bytes from their form in hex.
fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
    let pairs = hex.as_bytes().chunks_exact(2);
    pairs.map(|p| digit(p[0]) << 4 | digit(p[1])).collect()
}
