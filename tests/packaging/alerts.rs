//! Alert rules and the dashboard ask for metrics that there are.

use crate::{read, root};
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn alerts_and_dashboard_name_only_metrics_that_the_source_names() {
    let mut source = String::new();
    gather(&root().join("src"), &mut source);
    for file in [
        "packaging/prometheus/afferent.rules.yml",
        "packaging/grafana/afferent.json",
    ] {
        for metric in metrics(&read(file)) {
            assert!(
                source.contains(&format!("\"{metric}\"")),
                "{file}: there is no metric {metric}"
            );
        }
    }
}

/// Names as the source writes them: a histogram's without what it adds to its series.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.starts_with("afferent_"))
        .map(|word| {
            let word = word.strip_suffix("_bucket").unwrap_or(word);
            word.strip_suffix("_count").unwrap_or(word)
        })
        .collect()
}

fn gather(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, text);
        } else {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
