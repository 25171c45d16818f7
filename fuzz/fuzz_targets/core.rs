//! What Core says, of any content: as one document, and as the pages of REST. Whatever is made of it, the same
//! answer gives the same plan twice, and once it is carried out there is nothing left to do.
#![no_main]

use afferent_fuzz::http::{Client, HttpResponse};
use afferent_fuzz::inventory::{Kind, Row, RowKey};
use afferent_fuzz::mirror::change::Change;
use afferent_fuzz::mirror::core::{Core, FileCore, Observe, Pull, Pulled, RestCore, RestOptions};
use afferent_fuzz::mirror::diagnostics::Diagnostic;
use afferent_fuzz::mirror::entry::CoreEntry;
use afferent_fuzz::mirror::plan::{
    Earlier, Given, Plan, PresentComponents, plan_components, plan_racks,
};
use afferent_fuzz::mirror::policy::{Policy, Profile};
use afferent_fuzz::mirror::spec::{self, SkippedEntry};
use afferent_fuzz::visible::visible;
use libfuzzer_sys::fuzz_target;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use uuid::Uuid;

/// Between two pages; each begins with a line for `X-Pagination`.
const PAGE: u8 = 0x1e;

const PATIENCE: Duration = Duration::from_secs(60);

fuzz_target!(|data: &[u8]| {
    let answer = HttpResponse {
        status: 200,
        pagination: None,
        body: data.to_vec(),
    };
    let client = Client::of(vec![answer]);
    read_all(&mut FileCore::at_url(
        "http://core".into(),
        client,
        PATIENCE,
    ));
    let options = RestOptions {
        base: "http://core".into(),
        org: "o".into(),
        site: None,
        token_file: None,
        deadline: PATIENCE,
        all_lists: PATIENCE,
        list_cap: 1 << 20,
        observe: Observe {
            dpus: true,
            trays: true,
            endpoints: true,
        },
    };
    let client = Client::of(data.split(|byte| *byte == PAGE).map(page).collect());
    read_all(&mut RestCore::new(options, client));
});

fn page(text: &[u8]) -> HttpResponse {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (head, body) = text.split_at(end);
    HttpResponse {
        status: if body.is_empty() { 403 } else { 200 },
        pagination: std::str::from_utf8(head).ok().map(str::to_owned),
        body: body.to_vec(),
    }
}

fn read_all(core: &mut dyn Core) {
    core.begin();
    for kind in Kind::ALL {
        match core.expected(kind) {
            Pull::Absent => {}
            Pull::Failed(why) => assert_shown(&why),
            Pull::Done(pulled) => {
                for profile in [Profile::NaturalKey, Profile::HostMac] {
                    check(kind, &pulled, &Policy::of(profile));
                }
            }
        }
        match core.observed(kind) {
            Pull::Failed(why) => assert_shown(&why),
            Pull::Done(pulled) => {
                for device in &pulled.entries {
                    let _ = (device.positions(), device.health(), device.bmc_mac());
                }
            }
            Pull::Absent => {}
        }
    }
    let _ = core.topology();
    let _ = core.several_sites();
}

/// It stands on one line of the log.
fn assert_shown(why: &str) {
    assert_eq!(visible(why), why);
}

fn check(kind: Kind, pulled: &Pulled<CoreEntry>, policy: &Policy) {
    let mut rows = BTreeMap::new();
    let first = plan(kind, pulled, policy, &rows);
    let second = plan(kind, pulled, policy, &rows);
    assert_eq!(first.changes, second.changes);
    for Change { key, after, .. } in first.changes {
        match after {
            Some(row) => rows.insert(key, row),
            None => rows.remove(&key),
        };
    }
    let third = plan(kind, pulled, policy, &rows);
    assert_eq!(third.changes, Vec::new(), "{policy:?}");
}

fn plan(
    kind: Kind,
    pulled: &Pulled<CoreEntry>,
    policy: &Policy,
    rows: &BTreeMap<RowKey, Row>,
) -> Plan {
    let mut last = u128::try_from(rows.len()).expect("few rows");
    let mut new_id = || {
        last += 1;
        Uuid::from_u128(last)
    };
    let absent = HashMap::new();
    let given = |skipped| Given {
        kind,
        skipped,
        complete: pulled.complete,
        absent: &absent,
        policy,
        approval: None,
        now: "2026-01-01T00:00:00Z",
        trace: true,
    };
    if kind == Kind::Rack {
        let (wanted, skipped) = sort(&pulled.entries, |entry| spec::rack::wanted(entry, policy));
        let racks = rows.values().filter_map(|row| match row {
            Row::Rack(rack) => Some((**rack).clone()),
            _ => None,
        });
        let racks: Vec<_> = racks.collect();
        return plan_racks(given(&skipped), wanted, &racks, &mut new_id);
    }
    let (wanted, skipped) = sort(&pulled.entries, |entry| {
        spec::component::wanted(entry, kind, policy)
    });
    let mut present = PresentComponents {
        racks_pulled: true,
        ..PresentComponents::default()
    };
    for row in rows.values() {
        match row {
            Row::Component(component) => present.rows.push((**component).clone()),
            Row::Bmc(bmc) => present.bmcs.push(**bmc),
            _ => {}
        }
    }
    let mut earlier = Earlier::default();
    plan_components(given(&skipped), wanted, &present, &mut earlier, &mut new_id)
}

fn sort<T>(
    entries: &[CoreEntry],
    check: impl Fn(&CoreEntry) -> Result<(T, Vec<Diagnostic>), SkippedEntry>,
) -> (Vec<T>, Vec<SkippedEntry>) {
    let (mut wanted, mut skipped) = (Vec::new(), Vec::new());
    for entry in entries {
        match check(entry) {
            Ok((entry, _)) => wanted.push(entry),
            Err(entry) => skipped.push(entry),
        }
    }
    (wanted, skipped)
}
