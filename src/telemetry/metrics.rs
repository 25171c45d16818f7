//! Counters and histograms, and the page on which Prometheus reads them (text format 0.0.4).
//!
//! A command keeps [`Counter`]s, [`Counters`] and [`Histogram`]s where things happen, and writes them onto a
//! [`Page`] when it is asked; what is merely a state (how many wait) is looked up at that moment.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters by the value of one label. Values are words of the program, never of a peer, so that
/// their number is bounded.
#[derive(Debug)]
pub struct Counters(Mutex<BTreeMap<&'static str, u64>>);

impl Counters {
    /// Counters that are shown from the start, at 0.
    pub fn new(values: &[&'static str]) -> Self {
        Self(Mutex::new(values.iter().map(|value| (*value, 0)).collect()))
    }

    /// One more of these.
    pub fn inc(&self, value: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(value).or_default() += 1;
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.all().values().sum()
    }

    /// Number of values.
    #[cfg(test)]
    pub fn values(&self) -> usize {
        self.all().len()
    }

    /// Each of them, by value.
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Observations, counted by upper bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Mutex<(Vec<u64>, f64)>,
}

impl Histogram {
    /// With these upper bounds, ascending; one without bound is added.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: Mutex::new((vec![0; bounds.len() + 1], 0.0)),
        }
    }

    /// Counts one value.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.0.get_mut(bucket) {
            *count += 1;
        }
        counts.1 += value;
    }

    /// The upper bounds.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// How often a value was in each bucket, the one without bound last.
    pub fn counts(&self) -> Vec<u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0.clone()
    }

    /// Counts a time, in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }
}

/// A page of metrics while it is being written.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }

    /// A number that goes up; `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.sample(name, &[], value);
    }

    /// Numbers that go up, by `label`.
    pub fn counters(&mut self, name: &str, help: &str, label: &str, values: &Counters) {
        self.head(name, help, "counter");
        for (word, count) in values.all() {
            self.sample(name, &[(label, word)], count);
        }
    }

    /// Numbers that go up, by two labels: the first is given with the numbers, the second is theirs.
    pub fn counters_by<'v>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        values: impl IntoIterator<Item = (&'v str, &'v Counters)>,
    ) {
        self.head(name, help, "counter");
        for (first, counters) in values {
            for (second, count) in counters.all() {
                self.sample(name, &[(labels[0], first), (labels[1], second)], count);
            }
        }
    }

    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.sample(name, &[], value);
    }

    /// Numbers that go up and down, all with the same labels.
    pub fn gauges_by<'v, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        samples: impl IntoIterator<Item = ([&'v str; N], f64)>,
    ) {
        self.head(name, help, "gauge");
        for (values, number) in samples {
            let labelled: Vec<(&str, &str)> = labels.into_iter().zip(values).collect();
            self.sample(name, &labelled, number);
        }
    }

    /// Numbers that go up and down, each with its labels.
    pub fn gauges(&mut self, name: &str, help: &str, samples: &[(&[(&str, &str)], f64)]) {
        self.head(name, help, "gauge");
        for (labels, value) in samples {
            self.sample(name, labels, value);
        }
    }

    /// A histogram.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let (counts, sum) = histogram
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut below = 0;
        let bucket = format!("{name}_bucket");
        for (n, count) in counts.iter().enumerate() {
            below += count;
            // With its decimal point, as clients of other languages write it: rules match the text.
            let bound = histogram
                .bounds
                .get(n)
                .map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            self.sample(&bucket, &[("le", &bound)], below);
        }
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], below);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escape(text));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_text_format_of_prometheus() {
        let outcomes = Counters::new(&["ok", "failed"]);
        outcomes.inc("ok");
        let times = Histogram::new(&[0.5, 300.0]);
        times.observe(0.5);
        times.observe(1000.0);
        let mut page = Page::new();
        page.counters("a_total", "What.", "outcome", &outcomes);
        page.gauges("b", "State.", &[(&[("x", "\"\\\n")], 1.5)]);
        page.histogram("c_seconds", "Time.", &times);
        assert_eq!(
            page.finish(),
            "# HELP a_total What.\n# TYPE a_total counter\n\
             a_total{outcome=\"failed\"} 0\na_total{outcome=\"ok\"} 1\n\
             # HELP b State.\n# TYPE b gauge\nb{x=\"\\\"\\\\\\n\"} 1.5\n\
             # HELP c_seconds Time.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{le=\"0.5\"} 1\nc_seconds_bucket{le=\"300.0\"} 1\n\
             c_seconds_bucket{le=\"+Inf\"} 2\nc_seconds_sum 1000.5\nc_seconds_count 2\n"
        );
    }
}
