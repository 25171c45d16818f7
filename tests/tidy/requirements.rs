//! The table of requirements in `docs/testing.md`: each row names tests, and those exist.

use crate::sources::sources_below;
use std::path::Path;

/// Requirements of the table.
const REQUIREMENTS: usize = 14;

/// The rows of the table: number, requirement, proof.
fn rows(document: &str) -> Vec<[&str; 3]> {
    let section = document.split("## What Kubernetes and KubeVirt demand");
    let section = section.last().unwrap().split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        line.split(" | ").collect::<Vec<_>>().try_into().ok()
    });
    cells
        .filter(|[number, ..]: &[&str; 3]| number.parse::<usize>().is_ok())
        .collect()
}

/// What stands between two of these marks in a text.
fn marked(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

/// Names of tests and cases in a proof that are none of these sources.
fn missing<'a>(proof: &'a str, sources: &[String]) -> Vec<&'a str> {
    let is_name = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let has = |what: &str| sources.iter().any(|source| source.contains(what));
    let tests = marked(proof, '`').filter(is_name);
    let tests = tests.filter(|name| !has(&format!("fn {name}(")));
    let cases = marked(proof, '"').filter(|name| !has(&format!("\"{name}\"")));
    tests.chain(cases).collect()
}

#[test]
fn every_requirement_of_kubernetes_names_tests_that_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/testing.md");
    let document = std::fs::read_to_string(path).unwrap();
    let folders = ["src", "tests/it"].into_iter();
    let sources: Vec<String> = { folders.flat_map(sources_below) }
        .map(|source| source.text)
        .collect();
    let rows = rows(&document);
    assert_eq!(rows.len(), REQUIREMENTS);
    for (n, [number, _, proof]) in (1..).zip(rows) {
        assert_eq!(number, n.to_string());
        assert!(proof.contains('_'), "no test proves number {number}");
        assert_eq!(missing(proof, &sources), [""; 0], "number {number}");
    }
}

#[test]
fn a_test_or_a_case_that_is_renamed_is_missed() {
    let sources = ["fn a_test() {}\n(\"a case\", |peer| {".to_owned()];
    let proof = "`a_test`, `another_test`, \"a case\", \"another case\"; `make check-kube`";
    assert_eq!(missing(proof, &sources), ["another_test", "another case"]);
}
