//! `afferent status`: asks running services how they are.

use super::native;
use super::{DEGRADED, DONE, FAILED, USAGE, bundle, complain, is_nobody, print_data, print_with};
use crate::telemetry::control;
use crate::visible::visible;
use argh::FromArgs;
use serde_json::Value;
use std::io::{self, Write};
use std::path::PathBuf;

/// Where the units of the package have their sockets, and where a service without systemd has it.
const USUAL: [&str; 4] = [
    "/run/afferent/serve/control.sock",
    "/run/afferent/sense/control.sock",
    "/run/afferent/mirror/control.sock",
    "/var/lib/afferent/control.sock",
];

/// Characters of an error in the table.
const SHOWN: usize = 60;

/// Say how the services on this machine are doing; 4 if one is not as it should be.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "status",
    example = "afferent status --state silent"
)]
pub(super) struct StatusArgs {
    /// only the service with this state directory, may be repeated
    #[argh(option, arg_name = "DIR", from_str_fn(native::path))]
    state_dir: Vec<PathBuf>,
    /// print JSON, one object a service
    #[argh(switch)]
    json: bool,
    /// only guests whose report Central refused for good
    #[argh(switch)]
    dead: bool,
    /// only guests whose name contains this text
    #[argh(option, arg_name = "TEXT")]
    vm: Option<String>,
    /// only guests in this state: waiting, polled, new, failing, silent or departed
    #[argh(option, arg_name = "STATE")]
    state: Option<String>,
    /// send dead letters again: those of this guest, or all
    #[argh(option, arg_name = "VM")]
    retry: Option<String>,
    /// drop the dead letter of this guest, for good
    #[argh(option, arg_name = "VM")]
    drop: Option<String>,
    /// write status, configuration, metrics, log and file sizes, with secrets masked, to this tar file
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    bundle: Option<PathBuf>,
}

pub(super) fn run(args: &StatusArgs) -> u8 {
    let sockets = sockets(&args.state_dir);
    if let Some(file) = &args.bundle {
        if args.retry.is_some() || args.drop.is_some() {
            return complain(USAGE, "--bundle cannot be given with --retry or --drop");
        }
        return bundle::write(file, &sockets, &args.state_dir);
    }
    let mut answers = Vec::new();
    for socket in &sockets {
        match control::ask(socket, &question(args)) {
            Ok(answer) => answers.push(filtered(answer, args)),
            Err(error) if is_nobody(&error) => {}
            Err(error) => return complain(FAILED, &format!("{}: {error}", socket.display())),
        }
    }
    if answers.is_empty() {
        return complain(FAILED, &format!("no service answers at {}", list(&sockets)));
    }
    let mut all = answers.iter();
    let written = match args.json {
        true => print_data(|out| all.try_for_each(|answer| writeln!(out, "{answer}"))),
        false => print_with(|out| all.try_for_each(|answer| table(answer, out))),
    };
    // What is no status, the answer to a wish for example, has no state.
    let is_well = |answer: &Value| answer["state"].as_str().is_none_or(|state| state == "ok");
    match written {
        DONE if !answers.iter().all(is_well) => DEGRADED,
        code => code,
    }
}

fn sockets(given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() {
        return USUAL.iter().map(PathBuf::from).collect();
    }
    given.iter().map(|dir| control::socket_of(dir)).collect()
}

fn list(sockets: &[PathBuf]) -> String {
    let shown: Vec<_> = sockets.iter().map(|s| s.display().to_string()).collect();
    shown.join(", ")
}

fn question(args: &StatusArgs) -> String {
    if let Some(vm) = &args.drop {
        return format!("drop {vm}");
    }
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

/// What people read: values one a line, then guests one a line.
fn table(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    let mut answer = answer.clone();
    let guests = answer
        .as_object_mut()
        .and_then(|fields| fields.remove("guests"));
    lines("", &answer, out)?;
    match guests.as_ref().and_then(Value::as_array) {
        Some(guests) if !guests.is_empty() => guest_table(guests, out),
        _ => Ok(()),
    }
}

/// One line a value; objects within objects are written with their path.
fn lines(path: &str, value: &Value, out: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let path = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            lines(&path, value, out)
        }),
        Value::Array(items) if items.is_empty() => Ok(()),
        Value::Array(items) => items.iter().try_for_each(|item| lines(path, item, out)),
        Value::Null => writeln!(out, "{path:<22} -"),
        Value::String(text) => writeln!(out, "{path:<22} {}", visible(text)),
        other => writeln!(out, "{path:<22} {other}"),
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
    let before = shown(&guest["machine_before"]["until"]);
    let error = [
        shown(&guest["error"]),
        shown(&pending["error"]),
        format!("another machine since {before}"),
    ];
    let wrong = if before.is_empty() { 2 } else { 3 };
    let error = error.iter().take(wrong).find(|text| !text.is_empty());
    [
        or_dash(&guest["vm"]),
        or_dash(&guest["state"]),
        or_dash(&guest["known"]),
        seconds(&guest["reported_ago_s"]),
        or_dash(&guest["accepted"]["key"]),
        or_dash(&pending["state"]),
        or_dash(&pending["trigger"]),
        seconds(&pending["since_s"]),
        error
            .into_iter()
            .flat_map(|text| text.chars())
            .take(SHOWN)
            .collect(),
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
    match value {
        Value::Null => String::new(),
        Value::String(text) => visible(text).into_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn people_see_what_is_wrong_and_one_line_a_guest() {
        let answer = json!({
            "service": "sense", "state": "degraded", "reasons": ["Central is busy: 429"],
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
            "pending.reactive       1\n\
             pending.worst_case_wait_s -\n\
             reasons                Central is busy: 429\n\
             service                sense\n\
             state                  degraded\n\n\
             GUEST  STATE    REPORT  AGE  ACCEPTED  PENDING  TRIGGER   SINCE  ERROR\n\
             a      waiting  7:2     66m  7:1       queued   reactive  5s     x\\x1b[31m\n\
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
