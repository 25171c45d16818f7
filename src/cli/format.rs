//! How packages are written: a table for people, tab-separated lines and JSON for programs.
//!
//! Strings come from the guest. Control characters in them, which no real package has, are written
//! as `\x..`, so that a name can neither forge a line nor speak to a terminal.

use crate::report::{Facts, Package, Report};
use crate::wire::document::ReportDocument;
use serde::Serialize;
use std::borrow::Cow;
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
    let mut text = String::with_capacity(report.packages.len() * USUAL_LINE);
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
        .try_for_each(|range| out.write_all(line(range).as_bytes()))
}

/// Few lines are longer.
const USUAL_LINE: usize = 96;

fn tsv_line(package: &Package, text: &mut String) {
    let absent = |field: &Option<String>, text: &mut String| match field {
        Some(field) => text.push_str(&plain(field)),
        None => text.push_str("(none)"),
    };
    text.push_str(&plain(&package.name));
    // Writing to a String cannot fail.
    let _ = write!(text, "\t{}\t", package.evr.epoch);
    text.push_str(&plain(&package.evr.version));
    text.push('\t');
    text.push_str(&plain(&package.evr.release));
    for field in [
        &package.arch,
        &package.source_rpm,
        &package.modularity_label,
    ] {
        text.push('\t');
        absent(field, text);
    }
    text.push('\n');
}

/// Aligned columns: name, version, architecture, repository, module.
///
/// # Errors
/// What `out` says.
pub fn table(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let header = ["NAME", "VERSION", "ARCH", "REPOSITORY", "MODULE"];
    let row = |package: &Package| -> [String; 5] {
        [
            plain(&package.name).into_owned(),
            plain(&package.evr.to_string()).into_owned(),
            plain(package.arch.as_deref().unwrap_or("-")).into_owned(),
            plain(package.repo.as_deref().unwrap_or("-")).into_owned(),
            plain(package.module().unwrap_or("-")).into_owned(),
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
    facts: &'a Facts,
}

/// The `report` object that Central is sent, with the facts beside it.
///
/// # Errors
/// What `out` says.
pub fn json(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let document = ScanDocument {
        report: report.into(),
        package_db: &report.package_db,
        facts: &report.facts,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

/// The text with control characters made visible.
pub fn plain(text: &str) -> Cow<'_, str> {
    // Nearly all text is plain ASCII, and all of its bytes are looked at together.
    let odd = text
        .bytes()
        .fold(false, |odd, byte| odd | !matches!(byte, b' '..=b'~'));
    if !odd || !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(shown, "\\x{:02x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Evr;

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
        tsv(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "a\\x090\\x091\\x0ab\\x1b[2J\t0\t1\t1\t(none)\t(none)\t(none)\n"
        );
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
        json(&report, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["packages"][0]["version"], "1-1");
        assert_eq!(value["facts"]["os_version"], "9");
        assert_eq!(value["package_db"], "sqlite:var/lib/rpm");
    }
}
