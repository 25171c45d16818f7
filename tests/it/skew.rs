//! Version 0.1.0 and this one together: either may be the agent, either the sensor, and each half is
//! upgraded when its machine is.
//!
//! Loss prevented, in every test: guests that fall silent or send everything again and again because the
//! other half is of another version, and a change that is lost while one of both is replaced.
//!
//! Between sensor and agent stands a [`Tap`](crate::support::tap::Tap), which counts what they say.

use crate::support::central::{Central, Received};
use crate::support::mirror::Mirror;
use crate::support::nats_server::{JETSTREAM, NatsServer};
use crate::support::rig::Half::{Agent, Sensor};
use crate::support::rig::Version::{New, Old};
use crate::support::rig::{Door, GUEST, Half, PAIRS, Pair, Rig, is_skipped, packages, pair};
use crate::support::tap::Said;
use crate::support::{eventually, old};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Longest a change takes to Central on a machine that does a lot besides; see what is printed.
const SOON: Duration = Duration::from_secs(5);

/// All at the same time.
fn with_each<T: Copy + Send>(all: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for one in all {
            let test = &test;
            scope.spawn(move || test(one));
        }
    });
}

/// Found between 0.1 and a digest of another form: 63 full reports a minute, for ever.
#[test]
fn in_a_minute_without_a_change_one_full_report_goes_over_and_one_more_when_a_refresh_is_due() {
    if is_skipped() {
        return;
    }
    thread::scope(|scope| {
        scope.spawn(refreshes_after_a_minute);
        scope.spawn(|| with_each(PAIRS, is_quiet_for_a_minute));
    });
}

fn is_quiet_for_a_minute(pair: Pair) {
    let rig = Rig::start(pair);
    let start = rig.tap.exchanges()[0].asked_at;
    eventually("the minute is over", || {
        assert!(rig.fulls() <= 1, "{pair}: {:#?}", rig.tap.exchanges());
        (start.elapsed() >= MINUTE).then_some(())
    });
    let (fulls, unchanged) = (rig.fulls(), rig.tap.that_said(Said::Unchanged).len());
    let delivered = rig.central().received().len();
    println!("{pair}: {fulls} full, {unchanged} unchanged, {delivered} delivered in a minute");
    assert_eq!((fulls, delivered), (1, 1), "{pair}");
    // The wait was renewed, after 40 to 45 seconds, and is held again.
    assert_eq!(unchanged, 1, "{pair}: {:#?}", rig.tap.exchanges());
    assert!(rig.tap.is_waiting(0), "{pair}");
}

fn refreshes_after_a_minute() {
    let central = Central::start();
    central.remember_keys();
    let pair = pair(New, New);
    let rig = Rig::start_with(pair, &["--refresh-interval", "1m"], Door::Central(central));
    let first = rig.tap.exchanges()[0].asked_at;
    let second = eventually("the second full report", || {
        rig.tap.fulls().into_iter().nth(1)
    });
    let after = second.asked_at - first;
    println!("refreshed after {after:.1?}");
    assert_eq!(second.known, (0, 0), "not asked for in full");
    let is_due = Duration::from_secs(54)..=MINUTE + SOON;
    assert!(is_due.contains(&after), "{after:?}");
    // Central is told that it is still so.
    let received = eventually("it is delivered", || {
        Some(rig.central().received()).filter(|received| received.len() == 2)
    });
    assert_eq!(received[0].key, received[1].key);
    assert_eq!(received[1].answered, 409, "it has seen that");
}

#[test]
fn a_change_reaches_central_within_seconds_between_all_pairs() {
    if is_skipped() {
        return;
    }
    // One after the other: they are measured.
    for pair in PAIRS {
        let mut rig = Rig::start(pair);
        let mut took = Vec::new();
        for n in 1..=5 {
            took.push(rig.change());
            assert_eq!(rig.fulls(), 1 + n, "{pair}");
        }
        println!("{pair}: {took:.0?} from rpm's end to Central");
        assert!(took.iter().all(|took| *took < SOON), "{pair}: {took:?}");
    }
}

/// A restart alone needs no full report: the agent's is on disk under its key, and so is the sensor's
/// knowledge of it. What changed while one of both was away needs one.
#[test]
fn a_restart_of_either_half_loses_nothing_and_costs_no_full_report() {
    if is_skipped() {
        return;
    }
    with_each(PAIRS, |pair| {
        let mut rig = Rig::start(pair);
        for (half, is_kill) in [
            (Agent, false),
            (Agent, true),
            (Sensor, false),
            (Sensor, true),
        ] {
            let what = format!("{pair}, {half:?} is restarted, kill -9: {is_kill}");
            let version = match half {
                Agent => pair.agent,
                Sensor => pair.sensor,
            };
            let (fulls, key) = (rig.fulls(), rig.newest().key);
            let (from, began) = (rig.tap.exchanges().len(), Instant::now());
            rig.stop(half, is_kill);
            rig.start_half(half, version);
            rig.is_waited_at(from);
            let waited = began.elapsed();
            assert_eq!(rig.fulls(), fulls, "{what}");

            let from = rig.tap.exchanges().len();
            rig.stop(half, is_kill);
            rig.install();
            rig.start_half(half, version);
            rig.arrives();
            rig.is_waited_at(from);
            assert_eq!(rig.fulls(), fulls + 1, "{what}: it changed meanwhile");

            let took = rig.change();
            assert_eq!(rig.fulls(), fulls + 2, "{what}: the next change");
            assert_eq!(rig.newest().key, (key.0, key.1 + 2), "{what}");
            println!("{what}: waits again after {waited:.1?}, a change took {took:.0?}");
        }
    });
}

#[test]
fn a_refused_report_is_pulled_in_full_again_and_accepted_at_the_second_attempt() {
    if is_skipped() {
        return;
    }
    with_each(PAIRS, |pair| {
        let mut rig = Rig::start(pair);
        let before = rig.central().received().len();
        rig.central().answer_next(422, "");
        let began = Instant::now();
        rig.change();
        let deliveries = rig.central().received().split_off(before);
        let answers: Vec<u16> = deliveries.iter().map(|d| d.answered).collect();
        assert_eq!(answers, [422, 200], "{pair}");
        assert_eq!(deliveries[0].key, deliveries[1].key, "{pair}");
        let accepted = began.elapsed();
        // The sensor asks again when the wait ends that it is in: within 45 seconds.
        let again = eventually("it is pulled in full", || {
            let mut later = rig.tap.fulls().into_iter().skip(1);
            later.find(|exchange| exchange.known == (0, 0))
        });
        let asked = again.asked_at - began;
        println!("{pair}: accepted after {accepted:.1?}, pulled in full after {asked:.1?}");
        assert_eq!(rig.fulls(), 3, "{pair}");
    });
}

/// What a step of an upgrade costs: a new agent one full report, because its digest has another form and
/// so its report the next generation; a new sensor none, because it keeps the keys that the old one knew.
#[test]
fn upgrades_in_any_order_cost_one_full_report_for_the_agent_and_none_for_the_sensor() {
    if is_skipped() {
        return;
    }
    let orders: [&[&[Half]]; 4] = [
        &[&[Agent], &[Sensor]],
        &[&[Sensor], &[Agent]],
        &[&[Agent, Sensor]],
        &[&[Sensor, Agent]],
    ];
    with_each(orders, |order| {
        let mut rig = Rig::start(pair(Old, Old));
        rig.change();
        for halves in order {
            let what = format!("{halves:?} of {order:?}");
            let (fulls, (epoch, generation)) = (rig.fulls(), rig.newest().key);
            let (from, began) = (rig.tap.exchanges().len(), Instant::now());
            for half in *halves {
                rig.stop(*half, false);
            }
            for half in *halves {
                rig.start_half(*half, New);
            }
            let more = usize::from(halves.contains(&Agent));
            let expected = (epoch, generation + more as u32);
            eventually("the report as it is now counted", || {
                (rig.newest().key == expected).then_some(())
            });
            rig.is_waited_at(from);
            let waited = began.elapsed();
            assert!(waited < MINUTE, "{what}: silent for {waited:?}");
            assert_eq!(rig.fulls(), fulls + more, "{what}");
            assert_eq!(
                rig.tap.exchanges().last().unwrap().known,
                expected,
                "{what}"
            );

            let took = rig.change();
            assert!(took < SOON, "{what}: {took:?}");
            assert_eq!(rig.fulls(), fulls + more + 1, "{what}: the next change");
            assert_eq!(rig.newest().key, (expected.0, expected.1 + 1), "{what}");
            println!("{what}: waits again after {waited:.1?}, a change took {took:.0?}");
        }
        let exchanges = rig.tap.exchanges();
        assert!(exchanges.last().unwrap().is_new_sensor && rig.newest().is_new_agent);
    });
}

/// A package manager's upgrade while the services run: the new program takes the place of the file, and
/// each service is told to stop and started again.
#[test]
fn a_program_that_is_replaced_while_it_runs_takes_over_what_it_left() {
    if is_skipped() {
        return;
    }
    let mut rig = Rig::prepare(&[], Door::Central(Central::start()));
    let program = rig.launch.home().join("afferent");
    fs::copy(Old.program(), &program).unwrap();
    rig.start_agent(&program);
    rig.start_sensor(&program);
    rig.arrives();
    rig.central().always_answer("", 503, "");
    rig.install();
    let refused = |rig: &Rig| -> Option<Received> {
        let received = rig.central().received().into_iter();
        let mut now = received.filter(|r| packages(&r.body).as_ref() == Some(&rig.installed));
        now.find(|r| r.answered == 503)
    };
    let pending = eventually("Central is asked in vain", || refused(&rig));

    let next = rig.launch.home().join("afferent.new");
    fs::copy(New.program(), &next).unwrap();
    fs::rename(&next, &program).unwrap();
    // What runs is the old one, and it goes on.
    let agent = rig.agent.as_ref().unwrap().pid();
    for pid in [agent, rig.sensor.as_ref().unwrap().pid()] {
        let runs = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert!(runs.to_str().unwrap().ends_with("afferent (deleted)"));
    }
    rig.install();
    let newer = eventually("Central is asked in vain again", || refused(&rig));
    assert!(newer.key > pending.key);
    assert!(!rig.newest().is_new_agent);
    let (epoch, generation) = rig.newest().key;

    // The sensor first, and alone: what it delivers is what was pending.
    rig.stop(Agent, false);
    rig.stop(Sensor, false);
    rig.central().forget_rules();
    rig.start_sensor(&program);
    rig.arrives();
    let key = rig.central().received().pop().unwrap().key;
    let expected = format!("{GUEST}/{epoch}/{generation}/");
    assert!(key.starts_with(&expected), "{key} is not {expected}");
    let from = rig.tap.exchanges().len();
    rig.start_agent(&program);
    let next = (epoch, generation + 1);
    eventually("the same report under the next generation", || {
        (rig.newest().key == next).then_some(())
    });
    assert!(
        rig.newest().is_new_agent && rig.tap.exchanges()[from..].iter().all(|e| e.is_new_sensor)
    );
    rig.change();
    assert_eq!(rig.newest().key, (epoch, generation + 2));
}

/// Of the file itself redb rewrites what it keeps of free pages whenever it opens one, so its bytes are not
/// the same; what is stored is.
#[test]
fn stores_that_this_version_has_touched_are_refused_by_0_1_0_with_words_and_keep_what_they_hold() {
    if is_skipped() {
        return;
    }
    let mut rig = Rig::start(pair(Old, Old));
    let from = rig.tap.exchanges().len();
    for half in [Agent, Sensor] {
        rig.stop(half, false);
        rig.start_half(half, New);
    }
    rig.is_waited_at(from);
    rig.central().always_answer("", 503, "");
    rig.install();
    eventually("it is pending", || {
        let mut received = rig.central().received().into_iter();
        received.find(|r| r.answered == 503 && packages(&r.body).as_ref() == Some(&rig.installed))
    });
    let (fulls, key) = (rig.fulls(), rig.newest().key);
    for half in [Agent, Sensor] {
        rig.stop(half, false);
    }

    let socket = format!("unix:{}", rig.launch.home().join("other").display());
    let root = rig.root.path().to_str().unwrap();
    is_refused(
        &["serve", "--listen", &socket, "--root", root],
        rig.launch.state_dir(),
    );
    let vm = format!("{GUEST}={socket}");
    let central = rig.door.url();
    is_refused(
        &["sense", "--vm", &vm, "--deliver", &central],
        &rig.sensor_state(),
    );
    rig.central().forget_rules();
    rig.start_half(Sensor, New);
    rig.arrives();
    let from = rig.tap.exchanges().len();
    rig.start_half(Agent, New);
    rig.is_waited_at(from);
    assert_eq!((rig.fulls(), rig.newest().key), (fulls, key));
    rig.change();
    assert_eq!(rig.newest().key, (key.0, key.1 + 1));

    let mirror = Mirror::new();
    old::unpack("mirror", &mirror.state());
    // Looking at it leaves it as it is; a cycle in which nothing is pulled opens it for writing.
    mirror.dump();
    assert_eq!(mirror.run(&serde_json::json!({}), &[]).code, Some(0));
    let before = (mirror.dump(), mirror.audit());
    is_refused(&["mirror", "dump"], &mirror.state());
    let core = mirror.file("core.json", &old::expected()["mirror"]["next"]["core"]);
    let core = format!("file:{}", core.display());
    is_refused(
        &["mirror", "run", "--once", "--core", &core],
        &mirror.state(),
    );
    assert_eq!((mirror.dump(), mirror.audit()), before);
    mirror.check();
}

fn is_refused(args: &[&str], state: &Path) {
    let files = || {
        let entries = fs::read_dir(state).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.collect::<BTreeSet<_>>()
    };
    let before = files();
    let output = Command::new(Old.program())
        .args(args)
        .arg("--state-dir")
        .arg(state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{args:?}: {:?}, {said}", output.status.code());
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(said.contains("written by a newer afferent"), "{said}");
    assert_eq!(files(), before, "{args:?}: nothing is moved aside");
}

/// What is installed in a guest that was put back to an earlier state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// What was when the copy was made.
    Then,
    /// What was in between: the next generation was given out before with the very same content.
    Between,
    /// Something else: the next generation was given out before with other content.
    Elsewhere,
}

/// Also where whoever takes the reports knows each key that it has seen, and takes it once.
#[test]
fn what_is_installed_in_a_guest_that_was_put_back_to_an_earlier_state_arrives() {
    let is_skipped = is_skipped();
    // A sensor of version 0.1 shows the generation that it knows, and no digest that this agent made:
    // that the same generation has other content is not seen before the next change or refresh.
    let cases = [
        (New, Back::Then),
        (New, Back::Between),
        (New, Back::Elsewhere),
        (Old, Back::Then),
        (Old, Back::Between),
    ];
    let cases = cases
        .into_iter()
        .filter(|(sensor, _)| *sensor == New || !is_skipped);
    with_each(cases, |(sensor, back)| {
        let central = Central::start();
        central.remember_keys();
        let mut rig = Rig::start_with(pair(New, sensor), &[], Door::Central(central));
        goes_on_when_put_back(&mut rig, back);
    });
}

#[test]
fn what_is_installed_in_a_guest_that_was_put_back_to_an_earlier_state_is_in_the_stream() {
    with_each([Back::Then, Back::Between, Back::Elsewhere], |back| {
        let door = Door::Stream(NatsServer::start(JETSTREAM));
        let mut rig = Rig::start_with(pair(New, New), &[], door);
        goes_on_when_put_back(&mut rig, back);
    });
}

fn goes_on_when_put_back(rig: &mut Rig, back: Back) {
    rig.change();
    let copy = tempfile::tempdir().unwrap();
    let from = rig.tap.exchanges().len();
    rig.stop(Agent, false);
    fs::copy(rig.launch.database(), copy.path().join("copy")).unwrap();
    rig.start_half(Agent, New);
    rig.is_waited_at(from);
    let copied = rig.newest().key;

    rig.change();
    if back == Back::Between {
        rig.change();
    }
    let known = rig.newest().key;
    assert_eq!(known.0, copied.0);
    assert!(known.1 > copied.1, "it counted on after the copy");
    rig.stop(Agent, false);
    fs::copy(copy.path().join("copy"), rig.launch.database()).unwrap();
    rig.erase();
    if back == Back::Elsewhere {
        rig.install();
    }
    let (fulls, began) = (rig.fulls(), Instant::now());
    rig.start_half(Agent, New);
    rig.arrives();
    let (took, fulls) = (began.elapsed(), rig.fulls() - fulls);
    let now = rig.newest().key;
    println!(
        "{back:?}: {known:?} known, {copied:?} copied, {now:?} after {took:.1?}, {fulls} full"
    );
    assert_ne!(now.0, known.0, "{back:?}: a new epoch");
    // One when the stored report is shown under the new epoch, one when a scan finds another.
    assert!(fulls <= 2, "{back:?}: {:#?}", rig.tap.exchanges());
    let agent = rig.agent.as_ref().unwrap();
    agent.wait_until_said("the machine was put back to an earlier state");
    rig.change();
    assert_eq!(rig.newest().key.0, now.0, "{back:?}: the same epoch");
    if let Door::Central(central) = &rig.door {
        let mut answers = central.received().into_iter().map(|r| r.answered);
        assert!(answers.all(|status| status == 200), "no key came twice");
    }
}
