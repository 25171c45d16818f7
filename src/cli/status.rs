//! `afferent status`: asks running services how they are.

use super::{DEGRADED, DONE, FAILED, complain, print_with};
use crate::telemetry::control;
use argh::FromArgs;
use serde_json::Value;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Directories in which the units of the package have their sockets, and a service without a unit.
const USUAL: &[&str] = &[
    "/run/afferent/serve",
    "/run/afferent/sense",
    "/run/afferent/mirror",
    "/run/afferent",
    "/var/lib/afferent/serve",
    "/var/lib/afferent/sense",
    "/var/lib/afferent/mirror",
    "/var/lib/afferent",
];

/// Characters of an error in the table.
const SHOWN: usize = 60;

/// Ask the services that run here how they are.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "status",
    example = "afferent status --state silent"
)]
pub(super) struct StatusArgs {
    /// directory of the service's control socket, may be repeated (default: the usual ones)
    #[argh(option)]
    state_dir: Vec<PathBuf>,
    /// print what the services answer, as JSON
    #[argh(switch)]
    json: bool,
    /// only guests whose report Central refused for good
    #[argh(switch)]
    dead: bool,
    /// only guests whose name contains this text
    #[argh(option)]
    vm: Option<String>,
    /// only guests in this state: waiting, polled, new, failing, silent or departed
    #[argh(option)]
    state: Option<String>,
    /// send dead letters again: those of this guest, or all
    #[argh(option)]
    retry: Option<String>,
}

pub(super) fn run(args: &StatusArgs) -> u8 {
    let sockets = sockets(&args.state_dir);
    if sockets.is_empty() {
        return complain(FAILED, "no service runs here, or not for this user to see");
    }
    let mut answers = Vec::new();
    for socket in &sockets {
        match control::ask(socket, &question(args)) {
            Ok(answer) => answers.push(filtered(answer, args)),
            Err(error) => {
                let text = format!("{}: {error}", socket.display());
                // A socket that a killed service left behind is no service.
                if sockets.len() == 1 || error.kind() != io::ErrorKind::ConnectionRefused {
                    return complain(FAILED, &text);
                }
            }
        }
    }
    if answers.is_empty() {
        return complain(FAILED, "no service answers");
    }
    let written = print_with(|out| {
        answers.iter().try_for_each(|answer| match args.json {
            true => writeln!(out, "{answer}"),
            false => table(answer, out),
        })
    });
    let is_troubled = |answer: &Value| answer["trouble"].as_array().is_some_and(|t| !t.is_empty());
    if written == DONE && answers.iter().any(is_troubled) {
        return DEGRADED;
    }
    written
}

fn sockets(given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() {
        let usual = USUAL.iter().map(|d| Path::new(d).join(control::SOCKET));
        return usual.filter(|path| path.exists()).collect();
    }
    given.iter().map(|d| d.join(control::SOCKET)).collect()
}

fn question(args: &StatusArgs) -> String {
    match (&args.retry, args.dead) {
        (Some(all), _) if all == "all" => "retry".into(),
        (Some(vm), _) => format!("retry {vm}"),
        (None, true) => "status dead".into(),
        (None, false) => "status".into(),
    }
}

fn filtered(mut answer: Value, args: &StatusArgs) -> Value {
    if let Some(guests) = answer.get_mut("guests").and_then(Value::as_array_mut) {
        let has = |guest: &Value, key: &str, wanted: &dyn Fn(&str) -> bool| {
            guest[key].as_str().is_some_and(wanted)
        };
        guests.retain(|guest| {
            let vm = args.vm.as_ref();
            let state = args.state.as_ref();
            vm.is_none_or(|vm| has(guest, "vm", &|text| text.contains(vm)))
                && state.is_none_or(|state| has(guest, "state", &|text| text == state))
        });
    }
    answer
}

/// What people read: trouble first, then totals, then one line a guest.
fn table(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let Some(object) = answer.as_object() else {
        return writeln!(out, "{answer}");
    };
    let text = |key: &str| shown(&answer[key]);
    if !text("service").is_empty() {
        writeln!(out, "{} {}", text("service"), text("version"))?;
    }
    for trouble in answer["trouble"].as_array().into_iter().flatten() {
        writeln!(out, "  ! {}", shown(trouble))?;
    }
    for (key, value) in object {
        match value {
            _ if ["service", "version", "trouble", "guests"].contains(&key.as_str()) => {}
            Value::Object(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(|(name, value)| format!("{name} {}", shown(value)))
                    .collect();
                writeln!(out, "  {key}: {}", fields.join(", "))?;
            }
            value => writeln!(out, "  {key}: {}", shown(value))?,
        }
    }
    match answer["guests"].as_array() {
        Some(guests) if !guests.is_empty() => guest_table(guests, out),
        _ => Ok(()),
    }
}

fn guest_table(guests: &[Value], out: &mut dyn Write) -> io::Result<()> {
    let head = [
        "GUEST", "STATE", "REPORT", "AGE", "ACCEPTED", "PENDING", "TRIGGER", "SINCE", "ERROR",
    ];
    let rows: Vec<[String; 9]> = guests.iter().map(row).collect();
    let mut widths = head.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    writeln!(out)?;
    let rows = std::iter::once(head.map(str::to_owned)).chain(rows);
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

fn row(guest: &Value) -> [String; 9] {
    let or_dash = |value: &Value| match shown(value) {
        text if text.is_empty() => "-".to_owned(),
        text => text,
    };
    let pending = &guest["pending"];
    let error = match shown(&guest["error"]) {
        text if text.is_empty() => shown(&pending["error"]),
        text => text,
    };
    [
        or_dash(&guest["vm"]),
        or_dash(&guest["state"]),
        or_dash(&guest["known"]),
        seconds(&guest["reported_ago_s"]),
        or_dash(&guest["accepted"]["key"]),
        or_dash(&pending["state"]),
        or_dash(&pending["trigger"]),
        seconds(&pending["since_s"]),
        error.chars().take(SHOWN).collect(),
    ]
}

fn seconds(value: &Value) -> String {
    match value.as_u64() {
        None => "-".into(),
        Some(s @ 0..120) => format!("{s}s"),
        Some(s @ 120..7200) => format!("{}m", s / 60),
        Some(s) => format!("{}h", s / 3600),
    }
}

/// A value on one line; what a peer said must not speak to the terminal.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn people_see_trouble_first_and_one_line_a_guest() {
        let answer = json!({
            "service": "sense", "version": "1", "trouble": ["Central is busy: 429"],
            "pending": {"reactive": 1, "worst_case_wait_s": null},
            "guests": [
                {"vm": "a", "state": "waiting", "known": "7:2", "reported_ago_s": 4000, "accepted": {"key": "7:1"},
                 "pending": {"state": "queued", "trigger": "reactive", "since_s": 5, "error": "x\u{1b}[31m"}, "error": null},
                {"vm": "bb", "state": "silent", "known": null, "reported_ago_s": null, "accepted": null, "pending": null, "error": "no answer in time"},
            ],
        });
        let mut out = Vec::new();
        table(&answer, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "sense 1\n  ! Central is busy: 429\n  pending: reactive 1\n\n\
             GUEST  STATE    REPORT  AGE  ACCEPTED  PENDING  TRIGGER   SINCE  ERROR\n\
             a      waiting  7:2     66m  7:1       queued   reactive  5s     x [31m\n\
             bb     silent   -       -    -         -        -         -      no answer in time\n"
        );
    }

    #[test]
    fn a_filter_leaves_the_guests_it_names() {
        let args = StatusArgs::from_args(&["status"], &["--vm", "web", "--state", "new"]).unwrap();
        let answer = json!({"guests": [
            {"vm": "web-1", "state": "new"}, {"vm": "web-2", "state": "silent"}, {"vm": "db", "state": "new"},
        ]});
        let left = filtered(answer, &args);
        assert_eq!(left["guests"], json!([{"vm": "web-1", "state": "new"}]));
    }
}
