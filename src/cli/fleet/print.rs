//! Answers about the fleet as people read them.

use crate::cli::columns;
use crate::visible::visible;
use serde_json::Value;
use std::io::{self, Write};

type Out<'o> = &'o mut dyn Write;

/// A value on one line, `-` when there is none; what a guest said must not speak to the terminal.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => visible(text).into_owned(),
        other => other.to_string(),
    }
}

/// Without fractions of a second.
fn time(value: &Value) -> String {
    let text = shown(value);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

fn all<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}

fn plural(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

pub(super) fn guests(answer: &Value, out: Out<'_>) -> io::Result<()> {
    let head = [
        "GUEST", "OS", "PACKAGES", "AGENT", "CHANGED", "STATE", "REBOOT",
    ];
    let rows = all(answer, "guests").map(|guest| {
        [
            shown(&guest["vm"]),
            shown(&guest["os"]),
            shown(&guest["packages"]),
            shown(&guest["agent"]),
            time(&guest["changed_at"]),
            shown(&guest["state"]),
            shown(&guest["reboot_needed"]),
        ]
    });
    columns::write(&head, rows, out)?;
    not_stored(answer, out)
}

/// What an answer does not cover yet.
fn not_stored(answer: &Value, out: Out<'_>) -> io::Result<()> {
    match count(&answer["not_stored"]) {
        0 => Ok(()),
        guests => writeln!(
            out,
            "no report is stored yet of {}; `afferent status` says whether they answer, `afferent rescan` asks them now",
            plural(guests, "guest")
        ),
    }
}

pub(super) fn found(answer: &Value, out: Out<'_>) -> io::Result<()> {
    let is_kernel = answer["unknown"].is_u64();
    let head = [
        "GUEST",
        "OS",
        "INSTALLED",
        if is_kernel { "RUNNING" } else { "" },
    ];
    let rows: Vec<[String; 4]> = all(answer, "guests").map(found_row).collect();
    let found = rows.len();
    if found > 0 {
        columns::write(&head, rows.into_iter(), out)?;
        writeln!(out)?;
    }
    write!(
        out,
        "{} of {}",
        found,
        plural(count(&answer["looked_at"]), "guest")
    )?;
    match count(&answer["unknown"]) {
        0 => writeln!(out)?,
        unknown => writeln!(
            out,
            "; {} not tell which kernel runs",
            match unknown {
                1 => "1 more does".to_owned(),
                unknown => format!("{unknown} more do"),
            }
        )?,
    }
    not_stored(answer, out)
}

fn found_row(guest: &Value) -> [String; 4] {
    let packages = all(guest, "packages");
    let packages: Vec<String> = packages
        .map(|package| match package["arch"].as_str() {
            None | Some("") => shown(&package["version"]),
            Some(arch) => format!("{}.{}", shown(&package["version"]), visible(arch)),
        })
        .collect();
    let packages = if packages.is_empty() {
        "-".into()
    } else {
        packages.join(" ")
    };
    let running = match &guest["kernel_running"] {
        Value::Null => String::new(),
        running => shown(running),
    };
    [shown(&guest["vm"]), shown(&guest["os"]), packages, running]
}

fn count(value: &Value) -> usize {
    value
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or_default()
}

pub(super) fn login(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let text = answer["address"].as_str().unwrap_or_default();
    writeln!(out, "{}", visible(text))
}

pub(super) fn versions(answer: &Value, out: Out<'_>) -> io::Result<()> {
    let rows = all(answer, "versions")
        .map(|line| ["version", "arch", "guests"].map(|key| shown(&line[key])));
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return writeln!(out, "no guest has {}", shown(&answer["name"]));
    }
    columns::write(&["VERSION", "ARCH", "GUESTS"], rows.into_iter(), out)
}

/// Packages of one version are counted alone: they are most.
pub(super) fn drift(answer: &Value, out: Out<'_>) -> io::Result<()> {
    let (of_several, of_one): (Vec<_>, Vec<_>) =
        all(answer, "packages").partition(|line| line["versions"].as_u64() > Some(1));
    if !of_several.is_empty() {
        let rows = of_several.iter();
        let rows = rows.map(|line| {
            ["name", "versions", "guests", "behind", "newest"].map(|key| shown(&line[key]))
        });
        let head = ["PACKAGE", "VERSIONS", "GUESTS", "BEHIND", "NEWEST"];
        columns::write(&head, rows, out)?;
        writeln!(out)?;
    }
    let (several, one) = (of_several.len(), of_one.len());
    writeln!(
        out,
        "{} in several versions, {one} in one, on {}",
        plural(several, "package"),
        plural(count(&answer["looked_at"]), "guest")
    )
}

pub(super) fn show(answer: &Value, out: Out<'_>) -> io::Result<()> {
    let fields = [
        ("guest", shown(&answer["vm"])),
        (
            "os",
            match answer["os_name"].as_str() {
                None | Some("") => shown(&answer["os"]),
                Some(name) => format!("{} ({})", visible(name), shown(&answer["os"])),
            },
        ),
        ("state", shown(&answer["state"])),
        ("report", shown(&answer["report"])),
        ("seen", time(&answer["seen_at"])),
        ("changed", time(&answer["changed_at"])),
        ("agent", shown(&answer["agent"])),
    ];
    for (name, value) in fields {
        writeln!(out, "{name:<10}{value}")?;
    }
    writeln!(out, "\nFACTS")?;
    for (name, value) in answer["facts"].as_object().into_iter().flatten() {
        writeln!(out, "{}  {}", visible(name), shown(value))?;
    }
    writeln!(out, "\nHISTORY, the newest first")?;
    for row in all(answer, "history") {
        change(row, out)?;
    }
    if answer["more_history"] == true {
        writeln!(
            out,
            "...  `afferent fleet changes --vm {}` has the rest",
            shown(&answer["vm"])
        )?;
    }
    let installed = answer["installed"].as_array().map_or(0, Vec::len);
    let then = match &answer["at"] {
        Value::Null => String::new(),
        at => format!(" at {}", time(at)),
    };
    writeln!(
        out,
        "\n{}{then}",
        plural(installed, "package").to_uppercase()
    )?;
    let head = ["NAME", "VERSION", "ARCH", "REPOSITORY", "MODULE"];
    let rows = all(answer, "installed").map(|package| {
        ["name", "version", "arch", "repo", "module"].map(|key| shown(&package[key]))
    });
    columns::write(&head, rows, out)
}

/// Lines that begin alike, one a package.
pub(super) fn change(change: &Value, out: Out<'_>) -> io::Result<()> {
    let start = format!("{}  {}", time(&change["at"]), shown(&change["vm"]));
    if let Some(packages) = change["baseline"].as_u64() {
        return writeln!(out, "{start}  first report, {packages} packages");
    }
    for line in difference(change) {
        writeln!(out, "{start}  {line}  ({})", shown(&change["trigger"]))?;
    }
    Ok(())
}

/// One line a package that differs.
fn difference(set: &Value) -> Vec<String> {
    let name = |package: &Value| match package["arch"].as_str() {
        None | Some("") => shown(&package["name"]),
        Some(arch) => format!("{}.{}", shown(&package["name"]), visible(arch)),
    };
    let mut lines = Vec::new();
    for (key, what) in [
        ("upgraded", "upgraded"),
        ("downgraded", "downgraded"),
        ("changed", "changed"),
    ] {
        lines.extend(all(set, key).map(|pair| {
            let differs: Vec<String> = all(pair, "differs").map(shown).collect();
            let differs = match differs.is_empty() || key != "changed" {
                true => String::new(),
                false => format!(": other {}", differs.join(", ")),
            };
            let (from, to) = (shown(&pair["from"]), shown(&pair["to"]));
            let versions = if from == to {
                from
            } else {
                format!("{from} -> {to}")
            };
            format!("{what} {} {versions}{differs}", name(pair))
        }));
    }
    for (key, what) in [("added", "added"), ("removed", "removed")] {
        let one =
            |package: &Value| format!("{what} {} {}", name(package), shown(&package["version"]));
        lines.extend(all(set, key).map(one));
    }
    lines
}

pub(super) fn diff(answer: &Value, out: Out<'_>) -> io::Result<()> {
    let lines = difference(answer);
    let (from, to) = (shown(&answer["from"]), shown(&answer["to"]));
    if lines.is_empty() {
        return writeln!(out, "{from} and {to} have the same packages");
    }
    writeln!(out, "from {from} to {to}:")?;
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}

const CSV: [&str; 8] = [
    "name", "version", "arch", "source", "module", "repo", "vendor", "license",
];

/// One line a guest and package, as RFC 4180 has it but with plain line ends.
pub(super) fn csv(guests: Option<&Vec<Value>>, with_head: bool, out: Out<'_>) -> io::Result<()> {
    if with_head {
        writeln!(out, "vm,os,{}", CSV.join(","))?;
    }
    for guest in guests.into_iter().flatten() {
        for package in all(guest, "packages") {
            let own = ["vm", "os"].map(|key| cell(&guest[key]));
            let cells: Vec<String> = own
                .into_iter()
                .chain(CSV.map(|key| cell(&package[key])))
                .collect();
            writeln!(out, "{}", cells.join(","))?;
        }
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(write: impl FnOnce(Out<'_>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn guests_are_aligned_and_hostile_text_is_visible() {
        let answer = json!({"guests": [
            {"vm": "web-1", "os": "rhel-9.4", "packages": 600, "agent": "0.2.0", "changed_at": "2026-11-21T10:00:00.123Z", "state": null, "reboot_needed": "kernel"},
            {"vm": "b", "os": "x\u{1b}[31m", "packages": 7, "agent": "", "changed_at": "2026-11-21T10:00:01.000Z", "state": "waiting", "reboot_needed": null},
        ]});
        assert_eq!(
            text(|out| guests(&answer, out)),
            "GUEST  OS         PACKAGES  AGENT  CHANGED               STATE    REBOOT\n\
             web-1  rhel-9.4   600       0.2.0  2026-11-21T10:00:00Z  -        kernel\n\
             b      x\\x1b[31m  7         -      2026-11-21T10:00:01Z  waiting  -\n"
        );
    }

    #[test]
    fn what_was_found_ends_with_how_many() {
        let answer = json!({"looked_at": 3, "unknown": 2, "guests": [
            {"vm": "a", "os": "rhel-9", "kernel_running": "5-1.x86_64", "packages": [{"version": "5-2", "arch": "x86_64"}, {"version": "5-1", "arch": ""}]},
        ]});
        assert_eq!(
            text(|out| found(&answer, out)),
            "GUEST  OS      INSTALLED       RUNNING\n\
             a      rhel-9  5-2.x86_64 5-1  5-1.x86_64\n\n\
             1 of 3 guests; 2 more do not tell which kernel runs\n"
        );
        let none = json!({"looked_at": 1, "guests": [], "not_stored": 2});
        assert_eq!(
            text(|out| found(&none, out)),
            "0 of 1 guest\nno report is stored yet of 2 guests; \
             `afferent status` says whether they answer, `afferent rescan` asks them now\n"
        );
    }

    #[test]
    fn a_change_is_one_line_a_package() {
        let row = json!({
            "at": "2026-11-21T12:03:11.250Z", "vm": "web-17", "trigger": "reactive",
            "upgraded": [{"name": "openssl", "arch": "x86_64", "from": "3.0.7-27", "to": "3.0.7-28", "differs": ["license"]}],
            "changed": [{"name": "bash", "arch": "", "from": "5-1", "to": "5-1", "differs": ["repo", "vendor"]}],
            "added": [{"name": "vim", "arch": "noarch", "version": "9-1"}], "removed": [], "downgraded": [],
        });
        assert_eq!(
            text(|out| change(&row, out)),
            "2026-11-21T12:03:11Z  web-17  upgraded openssl.x86_64 3.0.7-27 -> 3.0.7-28  (reactive)\n\
             2026-11-21T12:03:11Z  web-17  changed bash 5-1: other repo, vendor  (reactive)\n\
             2026-11-21T12:03:11Z  web-17  added vim.noarch 9-1  (reactive)\n"
        );
        let first = json!({"at": "2026-11-21T12:03:11.250Z", "vm": "a", "baseline": 3});
        assert_eq!(
            text(|out| change(&first, out)),
            "2026-11-21T12:03:11Z  a  first report, 3 packages\n"
        );
    }

    #[test]
    fn a_system_without_a_name_of_its_own_is_shown_by_its_id() {
        for (name, said) in [
            ("", "\nos        rhel-9.4\n"),
            ("RHEL", "\nos        RHEL (rhel-9.4)\n"),
        ] {
            let guest = json!({"vm": "a", "os": "rhel-9.4", "os_name": name});
            let text = text(|out| show(&guest, out));
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn one_of_a_kind_is_counted_as_one() {
        let answer =
            json!({"looked_at": 1, "packages": [{"name": "a", "versions": 1, "guests": 1}]});
        assert_eq!(
            text(|out| drift(&answer, out)),
            "0 packages in several versions, 1 in one, on 1 guest\n"
        );
    }

    #[test]
    fn csv_quotes_what_would_end_a_cell() {
        let guests = [json!({"vm": "a", "os": "rhel-9", "packages": [
            {"name": "x", "version": "1-1", "arch": "noarch", "vendor": "A, \"B\"", "license": "MIT"},
        ]})];
        assert_eq!(
            text(|out| csv(Some(&guests.to_vec()), true, out)),
            "vm,os,name,version,arch,source,module,repo,vendor,license\n\
             a,rhel-9,x,1-1,noarch,,,,\"A, \"\"B\"\"\",MIT\n"
        );
    }
}
