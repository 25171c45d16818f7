//! Every worked example of the mirror's rules, against the built binary.
//!
//! Rows are loaded, Core is a document (or a scripted server), the result is a dump. A key of a
//! scenario that this runner does not know fails it, so that none is passed over in silence.

mod expect;
mod script;
mod translate;

use crate::support::mirror::{Mirror, Ran, fixture, without_times};
use expect::Expectations;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use translate::Translator;

/// Scenarios that cannot be said through `load`, `run` and `dump`, and why.
const NOT_EXPRESSIBLE: &[(&str, &str)] = &[
    (
        "MS194",
        "a write between read and write: both are one transaction, nothing comes between",
    ),
    (
        "MS280",
        "a write between read and write: both are one transaction, nothing comes between",
    ),
    (
        "MS278",
        "a write between read and write: both are one transaction, nothing comes between",
    ),
    (
        "MS270",
        "which of several firmware inventories counts is decided by who fills firmware_version",
    ),
    (
        "MS276",
        "which of several firmware inventories counts is decided by who fills firmware_version",
    ),
    (
        "MS411",
        "a kill at random points of a commit: see mirror_survives",
    ),
    ("MS414", "a full disk: see mirror_survives"),
];

#[test]
fn every_worked_example_of_the_rules_comes_out_as_written() {
    run_file("mirror/scenarios.yaml");
}

/// What the examples leave out: limits, ties, and what two rules say together.
#[test]
fn every_variation_of_the_examples_comes_out_as_the_rules_say() {
    run_file("mirror/variations.yaml");
}

#[test]
fn every_example_of_the_topology_comes_out_as_written() {
    run_file("mirror/topology.yaml");
}

/// Runs every scenario of a file under every profile that it names.
fn run_file(name: &str) {
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    let file: Value = serde_yaml_ng::from_str(&text).unwrap();
    let scenarios = file["scenarios"].as_array().unwrap();
    assert_eq!(Some(scenarios.len() as u64), file["meta"]["count"].as_u64());
    let mut cases: Vec<(&Value, &str)> = Vec::new();
    for scenario in scenarios {
        let id = scenario["id"].as_str().unwrap();
        if NOT_EXPRESSIBLE.iter().all(|(left_out, _)| *left_out != id) {
            let profiles = scenario["profile"].as_array().unwrap();
            assert!(!profiles.is_empty());
            cases.extend(profiles.iter().map(|p| (scenario, p.as_str().unwrap())));
        }
    }
    let only = std::env::var("SCENARIO").ok();
    cases.retain(|(scenario, _)| only.as_ref().is_none_or(|id| scenario["id"] == *id));
    let next = AtomicUsize::new(0);
    let failures: Mutex<BTreeMap<String, Vec<String>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((scenario, profile)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let wrong = run_scenario(scenario, profile);
                    if !wrong.is_empty() {
                        let name = format!("{} {profile}", scenario["id"].as_str().unwrap());
                        failures.lock().unwrap().insert(name, wrong);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let passed = cases.len() - failures.len();
    println!(
        "{passed} of {} scenario and profile pairs of {name} pass",
        cases.len()
    );
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Runs one scenario under one profile. Gives what is not as expected.
fn run_scenario(scenario: &Value, profile: &str) -> Vec<String> {
    let mirror = Mirror::new();
    let mut translator = Translator::default();
    let core = &scenario["core"];
    mirror.load(&translator.tables(&scenario["flow_before"]));
    if core
        .get("fault")
        .is_some_and(|f| f.get("db_changed_since_plan").is_some())
    {
        return stale_plan(&mirror, &mut translator, profile);
    }
    if let Some(permuted) = core.get("permute") {
        return every_order(scenario, permuted.as_str().unwrap(), profile);
    }
    let before = without_times(&mirror.dump());
    let mut expectations = Expectations::new(profile, &before);
    let empty = Vec::new();
    let cycles = core.get("cycles").and_then(Value::as_array);
    let steps: Vec<&Value> = cycles.map_or(vec![core], |cycles| cycles.iter().collect());
    let expected = &scenario["expect"];
    let per_cycle = expected
        .get("cycles")
        .and_then(Value::as_array)
        .unwrap_or(&empty);
    for (n, step) in steps.iter().enumerate() {
        if let Some(between) = step.get("between") {
            let changed = translator.between(between, mirror.dump());
            mirror.load(&changed);
        }
        let before = without_times(&mirror.dump());
        let begin = Instant::now();
        let (ran, requests) = run_step(&mirror, &mut translator, scenario, step, profile);
        let after = without_times(&mirror.dump());
        mirror.check();
        let step = expect::Step {
            before: &before,
            after: &after,
            ran: &ran,
            requests,
            elapsed: begin.elapsed(),
            audit: mirror.audit(),
        };
        if let Some(expect) = per_cycle.get(n) {
            expectations.check(expect, &step, &mut translator);
        }
        if n + 1 == steps.len() {
            expectations.check(expected, &step, &mut translator);
        }
    }
    expectations.wrong
}

/// One cycle of a scenario; how often the scripted server was asked.
fn run_step(
    mirror: &Mirror,
    translator: &mut Translator,
    scenario: &Value,
    step: &Value,
    profile: &str,
) -> (Ran, Option<usize>) {
    let mut flags = vec!["--profile".to_owned(), profile.to_owned()];
    flags.extend(translate::flags(scenario));
    let mut environment = Vec::new();
    if let Some(value) = translate::gate(&scenario["core"]) {
        environment.push(("AFFERENT_EXPECTED_INVENTORY_SYNC_ENABLED", value));
    }
    if let Some(what) = scenario["core"]
        .get("fault")
        .or(step.get("fault"))
        .and_then(|fault| fault.get("commit_fails"))
        .filter(|_| step.get("fault").is_some())
    {
        let document = translator.document(step);
        return (
            failing_commit(mirror, &document, what.as_str().unwrap(), profile),
            None,
        );
    }
    if step.get("migrate").is_some() {
        // Loading is the migration.
        let none = Ran {
            code: Some(0),
            summary: json!({}),
            stdout: String::new(),
            stderr: String::new(),
        };
        return (none, None);
    }
    let (core, server) = match step.get("http") {
        Some(http) => {
            let server = script::start(http);
            flags.extend(["--org", "test-org", "--request-deadline", "2s"].map(str::to_owned));
            (server.url.clone(), Some(server))
        }
        None => {
            let path = mirror.file("core.json", &translator.document(step));
            (format!("file:{}", path.display()), None)
        }
    };
    let mut arguments = vec!["run", "--once", "--json", "--core", &core];
    arguments.extend(flags.iter().map(String::as_str));
    let mut command = mirror.command(&arguments);
    command.envs(environment);
    let ran = crate::support::mirror::finish(&command.output().unwrap());
    let list = step["http"].as_object().and_then(|http| http.keys().next());
    let requests = list
        .zip(server)
        .map(|(list, server)| server.requests_for(list).len());
    (ran, requests)
}

/// A commit that fails, which only the library can be asked for.
fn failing_commit(mirror: &Mirror, document: &Value, what: &str, profile: &str) -> Ran {
    use afferent::mirror::core::FileCore;
    use afferent::mirror::cycle::{Cycle, Gatekeeper, run_cycle};
    use afferent::mirror::policy::Policy;

    struct Refuse<'a>(&'a str);
    impl Gatekeeper for Refuse<'_> {
        fn may_commit(&self, what: &str) -> Result<(), String> {
            if what == self.0 {
                Err("as the scenario says".into())
            } else {
                Ok(())
            }
        }
    }
    let path = mirror.file("core.json", document);
    let store = afferent::store::Store::open(&mirror.state(), "mirror.redb", 1 << 20)
        .unwrap()
        .store;
    let policy = Policy::of(profile.parse().unwrap());
    let cycle = Cycle {
        policy: &policy,
        approval: None,
        mirror: true,
        now: "2026-11-21T10:00:00.000Z".into(),
        new_id: &mut uuid::Uuid::new_v4,
        gatekeeper: &Refuse(what),
    };
    let summary = run_cycle(&store, &mut FileCore::at_path(path, None), cycle);
    Ran {
        code: Some(i32::from(!summary.errors.is_empty())),
        summary: serde_json::to_value(&summary).unwrap(),
        stdout: String::new(),
        stderr: String::new(),
    }
}

/// A saved plan is refused once the tables changed, and once Core did.
fn stale_plan(mirror: &Mirror, translator: &mut Translator, profile: &str) -> Vec<String> {
    let entry = |serial: &str| json!({"bmc_mac": "02:00:5e:30:00:01", "serial": serial, "labels": {"manufacturer": "Foxwell"}});
    let path = mirror.file(
        "core.json",
        &translator.document(&json!({"machines": [entry("O1")]})),
    );
    let core = format!("file:{}", path.display());
    let plan = mirror.path("old.json");
    let flags = ["--core", core.as_str(), "--profile", profile];
    let save = |mirror: &Mirror| {
        let mut arguments = vec!["plan", "--plan-out", plan.to_str().unwrap()];
        arguments.extend(flags);
        let output = mirror.output(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "plan: {said}");
    };
    let apply = |mirror: &Mirror| {
        let mut arguments = vec!["run", "--once", "--json", "--apply", plan.to_str().unwrap()];
        arguments.extend(flags);
        let before = mirror.dump();
        let ran = crate::support::mirror::finish(&mirror.output(&arguments));
        (ran.code, ran.codes("errors"), before == mirror.dump())
    };
    let refused = (Some(1), vec!["plan_stale".to_owned()], true);
    let mut wrong = Vec::new();
    save(mirror);
    let mut changed = mirror.dump();
    changed["component"][0]["power_state"] = json!("On");
    mirror.load(&changed);
    let after_change = apply(mirror);
    if after_change != refused {
        wrong.push(format!("tables changed, yet {after_change:?}"));
    }
    save(mirror);
    mirror.file(
        "core.json",
        &translator.document(&json!({"machines": [entry("O2")]})),
    );
    let after_change = apply(mirror);
    if after_change != refused {
        wrong.push(format!("Core changed, yet {after_change:?}"));
    }
    wrong
}

/// The same entries in every order, which must come out the same.
fn every_order(scenario: &Value, list: &str, profile: &str) -> Vec<String> {
    let entries = scenario["core"][list].as_array().unwrap();
    let mut wrong = Vec::new();
    let mut first: Option<Value> = None;
    for order in translate::permutations(entries.len()) {
        let mut one = scenario.clone();
        let core = one["core"].as_object_mut().unwrap();
        core.remove("permute");
        core[list] = order.iter().map(|i| entries[*i].clone()).collect();
        let expect = one["expect"].as_object_mut().unwrap();
        expect.remove("same_result_for_every_permutation");
        wrong.extend(run_scenario(&one, profile));
        let mirror = Mirror::new();
        let mut translator = Translator::default();
        mirror.load(&translator.tables(&one["flow_before"]));
        run_step(&mirror, &mut translator, &one, &one["core"], profile);
        let result = translate::without_new_ids(&mirror.dump());
        if *first.get_or_insert_with(|| result.clone()) != result {
            wrong.push(format!("order {order:?} comes out differently"));
        }
    }
    wrong
}
