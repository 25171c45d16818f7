//! How packages are written: a table for people, tab-separated lines and JSON for programs.
//!
//! Strings come from the guest. In the lines for programs their bytes are written as they are, as rpm
//! does; JSON has its escapes. In the table for people, control characters and bytes that are not UTF-8
//! are written as `\x..`, so that a name can neither forge a line nor give orders to a terminal.

use crate::report::escape::unescape;
use crate::report::{ABSENT, Facts, Package, Report};
use crate::visible::visible;
use crate::wire::document::ReportDocument;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;

/// The columns of `rpm -qa --qf
/// '%{NAME}\t%{EPOCHNUM}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\t%{SOURCERPM}\t%{MODULARITYLABEL}\n'`,
/// sorted bytewise; what is absent is `(none)`.
///
/// # Errors
/// What `out` says.
pub fn tsv(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    // All lines in one piece: a list of thousands takes memory once.
    let mut text = Vec::with_capacity(report.packages.len() * USUAL_LINE);
    let mut lines = Vec::with_capacity(report.packages.len());
    for package in &report.packages {
        let start = text.len();
        tsv_line(package, &mut text);
        lines.push(start..text.len());
    }
    let line = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
    lines.sort_unstable_by(|a, b| line(a).cmp(line(b)));
    lines
        .iter()
        .try_for_each(|range| out.write_all(line(range)))
}

/// Few lines are longer.
const USUAL_LINE: usize = 96;

fn tsv_line(package: &Package, text: &mut Vec<u8>) {
    let absent = |field: &Option<String>, text: &mut Vec<u8>| match field {
        Some(field) => push_bytes(field, text),
        None => text.extend_from_slice(ABSENT.as_bytes()),
    };
    push_bytes(&package.name, text);
    // Writing to a Vec cannot fail.
    let _ = write!(text, "\t{}\t", package.evr.epoch);
    push_bytes(&package.evr.version, text);
    text.push(b'\t');
    push_bytes(&package.evr.release, text);
    for field in [
        &package.arch,
        &package.source_rpm,
        &package.modularity_label,
    ] {
        text.push(b'\t');
        absent(field, text);
    }
    text.push(b'\n');
}

/// Appends the header's own bytes of a field.
fn push_bytes(field: &str, text: &mut Vec<u8>) {
    text.extend_from_slice(&unescape(field));
}

/// Aligned columns: name, version, architecture, repository, module.
///
/// # Errors
/// What `out` says.
pub fn table(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let header = ["NAME", "VERSION", "ARCH", "REPOSITORY", "MODULE"];
    let row = |package: &Package| -> [String; 5] {
        [
            visible(&package.name).into_owned(),
            visible(&package.evr.to_string()).into_owned(),
            visible(package.arch.as_deref().unwrap_or("-")).into_owned(),
            visible(package.origin.repository().unwrap_or("-")).into_owned(),
            visible(package.module().unwrap_or("-")).into_owned(),
        ]
    };
    let mut widths = header.map(str::len);
    for package in &report.packages {
        for (width, cell) in widths.iter_mut().zip(row(package)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(out, &header.map(str::to_owned), &widths)?;
    report
        .packages
        .iter()
        .try_for_each(|package| line(out, &row(package), &widths))
}

fn line(out: &mut dyn Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{cell:width$}  ");
    }
    writeln!(out, "{}", text.trim_end())
}

#[derive(Serialize)]
struct ScanDocument<'a> {
    #[serde(flatten)]
    report: ReportDocument<'a>,
    package_db: &'a str,
    facts: Facts,
}

/// The `report` object that Central is sent, with its facts and those about the scan.
///
/// # Errors
/// What `out` says.
pub fn json(report: &Report, about: &Facts, out: &mut dyn Write) -> io::Result<()> {
    let mut facts = about.clone();
    facts.extend(report.facts.clone());
    let document = ScanDocument {
        report: report.into(),
        package_db: &report.package_db,
        facts,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::escape::escape;
    use crate::report::{Evr, Origin};

    #[test]
    fn a_name_cannot_forge_a_line() {
        let report = Report {
            packages: vec![Package {
                name: "a\t0\t1\nb\u{1b}[2J".into(),
                evr: Evr::parse("1-1"),
                ..Package::default()
            }],
            ..Report::default()
        };
        let mut out = Vec::new();
        table(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().nth(1).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(
            line.starts_with("a\\x090\\x091\\nb\\x1b[2J  1-1 "),
            "{line}"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_written_and_sorted_as_they_are() {
        let package = |name: &[u8]| Package {
            name: escape(name).into_owned(),
            evr: Evr::parse("1-1"),
            ..Package::default()
        };
        let names = [
            &b"caf\xe9"[..],
            "caf\u{e9}".as_bytes(),
            b"caf\\x",
            b"a\x07\xe9",
        ];
        let report = Report {
            packages: names.map(package).into(),
            ..Report::default()
        };
        let mut out = Vec::new();
        tsv(&report, &mut out).unwrap();
        let written: Vec<&[u8]> = out
            .split(|b| *b == b'\n')
            .filter_map(|line| line.split(|b| *b == b'\t').next())
            .filter(|name| !name.is_empty())
            .collect();
        assert_eq!(
            written,
            [
                &b"a\x07\xe9"[..],
                b"caf\\x",
                "caf\u{e9}".as_bytes(),
                b"caf\xe9"
            ]
        );
    }

    #[test]
    fn the_table_shows_a_repository_and_a_dash_for_every_origin_without_one() {
        let with = |origin| Package {
            name: "a".into(),
            evr: Evr::parse("1-1"),
            origin,
            ..Package::default()
        };
        let report = Report {
            packages: vec![
                with(Origin::Unrecorded),
                with(Origin::Unknown),
                with(Origin::recorded("@System")),
                with(Origin::recorded("baseos")),
            ],
            ..Report::default()
        };
        let mut out = Vec::new();
        table(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let shown: Vec<_> = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(3))
            .collect();
        assert_eq!(shown, ["-", "-", "-", "baseos"]);
    }

    #[test]
    fn json_is_the_report_with_its_facts_beside_it() {
        let report = Report {
            packages: vec![Package {
                name: "a".into(),
                evr: Evr::parse("1-1"),
                ..Package::default()
            }],
            package_db: "sqlite:var/lib/rpm".into(),
            facts: Facts::from([("os_version".into(), "9".into())]),
            ..Report::default()
        };
        let mut out = Vec::new();
        let about = Facts::from([("provenance".into(), "ok".into())]);
        json(&report, &about, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["packages"][0]["version"], "1-1");
        assert_eq!(value["facts"]["os_version"], "9");
        assert_eq!(value["facts"]["provenance"], "ok");
        assert_eq!(value["package_db"], "sqlite:var/lib/rpm");
    }
}
