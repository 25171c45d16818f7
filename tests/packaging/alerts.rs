//! Alert rules and the dashboard ask for what a running sensor and a running mirror really say.

use crate::read;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const RULES: &str = "packaging/prometheus/afferent.rules.yml";
const TESTS: &str = "packaging/prometheus/afferent.rules.test.yml";
const DASHBOARD: &str = "packaging/grafana/afferent.json";

#[test]
fn alerts_their_tests_and_the_dashboard_select_series_that_a_service_has() {
    let page = sensor_page() + &reader_page() + &mirror_page();
    for (file, asked) in asked() {
        let selectors = selectors(&asked);
        for selector in &selectors {
            assert!(
                page.lines().any(|sample| selector.selects(sample)),
                "{file}: nothing a service says is selected by {selector:?} in {asked}"
            );
        }
        assert!(
            !selectors.is_empty() || asked.contains("afferent:"),
            "{file}: {asked} asks for nothing of ours"
        );
    }
}

#[test]
fn recorded_series_that_are_asked_for_are_recorded() {
    let recorded: BTreeSet<String> = rules()
        .iter()
        .filter_map(|rule| rule["record"].as_str().map(str::to_owned))
        .collect();
    assert!(!recorded.is_empty());
    for (file, asked) in asked() {
        for name in words(&asked).filter(|word| word.starts_with("afferent:")) {
            assert!(recorded.contains(name), "{file}: nothing records {name}");
        }
    }
}

#[test]
fn each_alert_has_a_test_in_which_it_fires() {
    let tests: serde_yaml_ng::Value = serde_yaml_ng::from_str(&read(TESTS)).unwrap();
    let cases = tests["tests"].as_sequence().unwrap();
    for rule in rules() {
        let Some(alert) = rule["alert"].as_str() else {
            continue;
        };
        let fires = cases
            .iter()
            .flat_map(|case| case["alert_rule_test"].as_sequence().unwrap())
            .filter(|test| test["alertname"].as_str() == Some(alert))
            .any(|test| !test["exp_alerts"].as_sequence().unwrap().is_empty());
        assert!(fires, "no test in which {alert} fires");
    }
}

/// Series of one name, with labels that have to be exactly so.
#[derive(Debug)]
struct Selector {
    name: String,
    labels: Vec<String>,
}

impl Selector {
    fn selects(&self, sample: &str) -> bool {
        let (name, labels) = sample.split_once(['{', ' ']).unwrap_or((sample, ""));
        name == self.name && self.labels.iter().all(|label| labels.contains(label))
    }
}

/// Every expression, with the file it stands in.
fn asked() -> Vec<(&'static str, String)> {
    let mut asked: Vec<(&str, String)> = rules()
        .iter()
        .map(|rule| (RULES, rule["expr"].as_str().unwrap().to_owned()))
        .collect();
    let tests: serde_yaml_ng::Value = serde_yaml_ng::from_str(&read(TESTS)).unwrap();
    for case in tests["tests"].as_sequence().unwrap() {
        let series = case["input_series"].as_sequence().unwrap().iter();
        asked.extend(series.map(|one| (TESTS, one["series"].as_str().unwrap().to_owned())));
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap().iter();
        asked.extend(targets.map(|one| (DASHBOARD, one["expr"].as_str().unwrap().to_owned())));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["query"]["query"].as_str();
        asked.extend(query.map(|query| (DASHBOARD, query.to_owned())));
    }
    asked
}

fn rules() -> Vec<serde_yaml_ng::Value> {
    let rules: serde_yaml_ng::Value = serde_yaml_ng::from_str(&read(RULES)).unwrap();
    let groups = rules["groups"].as_sequence().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_sequence().unwrap().clone())
        .collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
}

fn selectors(expression: &str) -> Vec<Selector> {
    let starts = expression.match_indices("afferent_").filter(|(at, _)| {
        let before = expression[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    });
    starts
        .map(|(at, _)| {
            let name = words(&expression[at..]).next().unwrap().to_owned();
            let labels = expression[at + name.len()..]
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'))
                .map_or("", |(labels, _)| labels);
            Selector {
                name,
                // What Prometheus itself adds is on no page; patterns are of the dashboard's variables.
                labels: labels
                    .split(',')
                    .filter(|label| !label.is_empty() && !label.contains("=~"))
                    .filter(|label| !label.starts_with("instance=") && !label.starts_with("job="))
                    .map(str::to_owned)
                    .collect(),
            }
        })
        .collect()
}

/// Ends with the test, however that ends.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The page of metrics of a sensor that has just begun.
fn sensor_page() -> String {
    let state = tempfile::tempdir().unwrap();
    let nowhere = state.path().join("nowhere");
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command
        .args(["sense", "--metrics", "0", "--state-dir"])
        .arg(state.path())
        .args(["--vm", &format!("a=unix:{}", nowhere.display())])
        .args(["--deliver", &format!("file:{}", nowhere.display())]);
    page_of(&mut command, |_| true)
}

/// That of a sensor that reads a stream, on a server that is not there.
fn reader_page() -> String {
    let state = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command
        .args(["sense", "--metrics", "0", "--state-dir"])
        .arg(state.path())
        .args(["--reports-from", "nats://127.0.0.1:9?stream=REPORTS"]);
    page_of(&mut command, |_| true)
}

/// That of a mirror after its first cycle: one machine that is expected, and not there.
fn mirror_page() -> String {
    let state = tempfile::tempdir().unwrap();
    let core = state.path().join("core.json");
    let machine =
        r#"{"bmc_mac_address":"02:00:5e:00:00:01","chassis_serial_number":"S","manufacturer":"M"}"#;
    let document =
        format!(r#"{{"expected_racks":[],"expected_machines":[{machine}],"actual_machines":[]}}"#);
    std::fs::write(&core, document).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command
        .args(["mirror", "run", "--metrics", "0", "--state-dir"])
        .arg(state.path().join("state"))
        .args(["--core", &format!("file:{}", core.display())]);
    page_of(&mut command, |page| page.contains("missing_in_actual"))
}

/// The page of a service that was just started, once it is as `wanted`.
fn page_of(command: &mut Command, wanted: impl Fn(&str) -> bool) -> String {
    let service = command
        .env("AFFERENT_LOG_FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn();
    let mut service = Service(service.unwrap());
    let log = BufReader::new(service.0.stderr.take().unwrap());
    // Read to the end of the test: nobody has to write to a pipe that is closed.
    let mut lines = log.lines();
    let address = lines
        .find_map(|line| {
            let said: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            (said["message"] == "metrics").then(|| said["address"].as_str().unwrap().to_owned())
        })
        .expect("the service ended before it said where its metrics are");
    loop {
        let mut peer = TcpStream::connect(&address).unwrap();
        peer.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut page = String::new();
        peer.read_to_string(&mut page).unwrap();
        let (head, page) = page.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        if wanted(page) {
            return page.to_owned();
        }
    }
}
