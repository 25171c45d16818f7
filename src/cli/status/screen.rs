//! What people read of a service: one screen, with what is wrong first and what to do about it.
//!
//! Every text of a guest, of Central or of a file passes `visible` here: on a terminal the screen has colours, so
//! that nothing behind it could tell our escapes from theirs.

use crate::cli::columns;
use crate::visible::visible;
use serde_json::{Map, Value};
use std::io::{self, Write};

/// Guests in the table, unless some were asked for: a screen has few lines.
const MOST_GUESTS: usize = 20;

/// Characters of an error in the table.
const SHOWN: usize = 60;

/// What a reason begins with, and what to do about it. Other sinks than Central have the same reasons.
const ADVICE: [(&str, &str); 26] = [
    (
        "Central is unreachable",
        "check its address (`deliver`) and the way to it; reports wait meanwhile",
    ),
    (
        "Central is unauthorized",
        "renew the secret in the file of `token_file`; it is read again by itself",
    ),
    (
        "Central is busy",
        "nothing: it takes reports again later; `rate` and `burst` may be set to its limits",
    ),
    (
        "Central is failing",
        "look into its log; reports wait meanwhile",
    ),
    (
        "guests whose reports Central forbids",
        "allow this sensor to report for them; `afferent status --json` names them",
    ),
    (
        "reports cannot be kept",
        "make room on the disk of the state directory; it goes on by itself",
    ),
    (
        "the store cannot be read",
        "look into the log; a damaged file is moved aside by itself",
    ),
    (
        "no reports are read",
        "check the address (`reports_from`), the stream and the way to it; it goes on by itself",
    ),
    (
        "roster:",
        "correct the source of guests that is named; it is read again by itself",
    ),
    (
        "dead letters",
        "`afferent status --dead` lists them, `--retry VM` sends one again, `--drop VM` gives it up",
    ),
    (
        "no guest answers",
        "the column ERROR says why: do the agents run, are the addresses right, and is the way to them open?",
    ),
    (
        "silent guests",
        "`afferent status --state silent` lists them; does the agent run there, and is it reached?",
    ),
    (
        "reports for a sink",
        "configure that sink again, or give up what is left of it with the command behind the number",
    ),
    (
        "the mapping of repositories to CPEs",
        "check its file or address; the last good mapping stays in use",
    ),
    (
        "fleet API",
        "correct what is named; the rest of the service goes on",
    ),
    (
        "mirror API",
        "correct what is named; the rest of the service goes on",
    ),
    (
        "the last scan failed",
        "look into the log; the report stays as it was, and the next scan follows by itself",
    ),
    ("the first scan", "wait until it has ended"),
    (
        "the state directory cannot be used",
        "check that directory and its owner; restart the service then",
    ),
    (
        "changes may be noticed late",
        "look into the log: files are not watched, so that changes are found by comparing from time to time",
    ),
    (
        "no mapping of repositories to CPEs was pushed yet",
        "let a sensor push it, or give `serve` one of its own",
    ),
    (
        "the client CA of KubeVirt",
        "check that this machine is a KubeVirt guest with VSOCK; it is asked again by itself",
    ),
    (
        "the RPM database was written to",
        "find the program that writes to it without an end; the report follows when it stops",
    ),
    ("the first cycle", "wait until it has ended"),
    // Of the type of device that stands before it.
    (
        "what is expected was not read",
        "check the address (`core`) and the way to it; rows stay as they are meanwhile",
    ),
    (
        "what is observed was not read",
        "check the address (`observed`, else `core`) and the way to it; drift stays as it is meanwhile",
    ),
];

/// Whether a screen has colours.
#[derive(Clone, Copy)]
pub(super) enum Palette {
    /// For terminals.
    Coloured,
    /// For everything else, and where NO_COLOR is set.
    Plain,
}

impl Palette {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }

    fn state(self, state: &str) -> String {
        let code = match state {
            "ok" => "32",
            _ => "1;31",
        };
        self.paint(code, state)
    }
}

/// Writes the screen of one service. `is_asked`: the guests were asked for, so that all are shown.
pub(super) fn write(
    answer: &Value,
    is_asked: bool,
    palette: Palette,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut answer = answer.clone();
    let mut take = |key: &str| {
        let fields = answer.as_object_mut();
        fields
            .and_then(|fields| fields.remove(key))
            .unwrap_or_default()
    };
    let [service, version, state, reasons] =
        ["service", "version", "state", "reasons"].map(&mut take);
    let (guests, states, pending) = (take("guests"), take("guest_states"), take("pending"));
    let (sinks, _) = (take("sinks"), take("orphaned_sinks"));
    if let Some(state) = state.as_str() {
        let name = palette.paint("1", &shown(&service));
        let (version, state) = (shown(&version), palette.state(&shown(&state.into())));
        let answering = answering(&states).map(|said| format!("  {said}"));
        let answering = answering.unwrap_or_default();
        writeln!(out, "{name} {version}  {state}{answering}")?;
    }
    for reason in reasons.as_array().into_iter().flatten() {
        let reason = shown(reason);
        writeln!(
            out,
            "  {} {}",
            palette.paint("1;31", "!"),
            palette.paint("31", &reason)
        )?;
        if let Some(advice) = advice(&reason) {
            writeln!(out, "    {advice}")?;
        }
    }
    let mut rows = Vec::new();
    if states.is_object() {
        rows.push(("guests".to_owned(), counts(&states)));
    }
    if pending.is_object() {
        rows.push(("pending".to_owned(), pending_line(&pending)));
    }
    // What one sink has is what there is.
    for sink in sinks
        .as_array()
        .filter(|sinks| sinks.len() > 1)
        .into_iter()
        .flatten()
    {
        rows.push((format!("sink {}", shown(&sink["name"])), sink_line(sink)));
    }
    flatten("", &answer, &mut rows);
    let width = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    for (name, value) in rows {
        writeln!(out, "  {name:<width$}  {value}")?;
    }
    match guests.as_array() {
        Some(guests) if !guests.is_empty() => guest_table(guests, is_asked, out),
        _ => Ok(()),
    }
}

fn advice(reason: &str) -> Option<&'static str> {
    // What is said of `the sink NAME` is looked up as what is said of Central.
    let of_sink = reason.split_once("the sink ").and_then(|(before, rest)| {
        let (_, said) = rest.split_once(' ')?;
        Some(format!("{before}Central {said}"))
    });
    let reason = of_sink.as_deref().unwrap_or(reason);
    let of = |said: &str| ADVICE.iter().find(|(begin, _)| said.starts_with(begin));
    // A mirror says first what type of device it is about.
    let of_kind = || of(reason.split_once(": ")?.1);
    of(reason).or_else(of_kind).map(|(_, advice)| *advice)
}

/// What must be known first of a sensor: how many of the guests that it asks answer.
fn answering(states: &Value) -> Option<String> {
    let of_states = states.as_object()?.iter();
    let asked = of_states.filter(|(state, _)| *state != "idle");
    let asked: u64 = asked.filter_map(|(_, count)| count.as_u64()).sum();
    let count = |state: &str| states[state].as_u64().unwrap_or(0);
    let answering = count("waiting") + count("polled");
    Some(match asked {
        0 => "no guest to ask".into(),
        1 => format!("{answering} of 1 guest answers"),
        asked => format!("{answering} of {asked} guests answer"),
    })
}

/// `240: 238 waiting, 2 silent`; what there is none of is left out.
fn counts(states: &Value) -> String {
    let states = states.as_object().into_iter().flatten();
    let states: Vec<(&String, u64)> = states
        .filter_map(|(name, count)| Some((name, count.as_u64()?)))
        .collect();
    let all: u64 = states.iter().map(|(_, count)| count).sum();
    let some = states.iter().filter(|(_, count)| *count > 0);
    let some: Vec<String> = some
        .map(|(name, count)| format!("{count} {}", visible(name)))
        .collect();
    match some.is_empty() {
        true => "0".into(),
        false => format!("{all}: {}", some.join(", ")),
    }
}

fn pending_line(pending: &Value) -> String {
    let count = |key: &str| pending[key].as_u64().unwrap_or(0);
    let mut parts: Vec<String> = ["reactive", "routine", "in_flight", "dead"]
        .iter()
        .filter(|key| count(key) > 0)
        .map(|key| format!("{} {}", count(key), key.replace('_', " ")))
        .collect();
    if parts.is_empty() {
        parts.push("nothing".into());
    } else {
        parts.push(format!("the oldest for {}", seconds(&pending["oldest_s"])));
    }
    if pending["worst_case_wait_s"].is_u64() {
        let wait = seconds(&pending["worst_case_wait_s"]);
        parts.push(format!("a new routine report waits at most {wait}"));
    }
    parts.join(", ")
}

fn sink_line(sink: &Value) -> String {
    let pending = pending_line(&sink["pending"]);
    let line = format!("{}; pending: {pending}", shown(&sink["deliver"]));
    match sink["trouble"]["reason"].as_str() {
        Some(reason) => format!("{line}; pauses: {}", visible(reason)),
        None => line,
    }
}

/// One row a value; objects within objects are written with their path. An object in a list is one row.
fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = visible(name);
                let path = match path {
                    "" => name.into_owned(),
                    path => format!("{path}.{name}"),
                };
                flatten(&path, value, rows);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| match item {
            Value::Object(fields) => rows.push((path.to_owned(), in_one_row(fields))),
            item => flatten(path, item, rows),
        }),
        Value::Null => rows.push((path.to_owned(), "-".into())),
        other => rows.push((path.to_owned(), shown(other))),
    }
}

/// `guests 3, name roster.toml`; what there is none of is left out.
fn in_one_row(fields: &Map<String, Value>) -> String {
    let said = fields.iter().filter(|(_, value)| !value.is_null());
    let said = said.map(|(name, value)| format!("{} {}", visible(name), shown(value)));
    said.collect::<Vec<_>>().join(", ")
}

fn guest_table(guests: &[Value], is_asked: bool, out: &mut dyn Write) -> io::Result<()> {
    // Those with something wrong first, in the order of names.
    let (mut shown, fine): (Vec<&Value>, Vec<&Value>) =
        guests.iter().partition(|guest| is_wrong(guest));
    shown.extend(fine);
    let left = match is_asked {
        true => 0,
        false => shown.len().saturating_sub(MOST_GUESTS),
    };
    shown.truncate(shown.len() - left);
    if is_asked {
        shown = guests.iter().collect();
    }
    writeln!(out)?;
    let head = [
        "GUEST", "STATE", "REPORT", "AGE", "ACCEPTED", "PENDING", "TRIGGER", "SINCE", "ERROR",
    ];
    columns::write(&head, shown.into_iter().map(row), out)?;
    match left {
        0 => Ok(()),
        left => writeln!(
            out,
            "... and {left} more; --vm TEXT or --state STATE lists those that are meant"
        ),
    }
}

fn is_wrong(guest: &Value) -> bool {
    let is_fine = matches!(guest["state"].as_str(), Some("waiting" | "polled" | "new"));
    !is_fine || !guest["error"].is_null() || !guest["pending"]["error"].is_null()
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

    fn screen(answer: &Value, is_asked: bool, palette: Palette) -> String {
        let mut out = Vec::new();
        write(answer, is_asked, palette, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn degraded() -> Value {
        json!({
            "service": "sense", "version": "0.2.0", "state": "degraded",
            "reasons": ["Central is busy: 429", "dead letters: 2 (status --dead)", "x\u{1b}[31m"],
            "deliver": "http://c", "sources": [{"name": "r\u{1b}", "error": null, "guests": 2}],
            "guest_states": {"waiting": 1, "silent": 1, "new": 0},
            "pending": {"reactive": 1, "routine": 0, "in_flight": 0, "dead": 2, "oldest_s": 300, "worst_case_wait_s": null},
            "guests": [
                {"vm": "a", "state": "waiting", "known": "7:2", "reported_ago_s": 4000, "accepted": {"key": "7:1"},
                 "pending": {"state": "queued", "trigger": "reactive", "since_s": 5, "error": null}, "error": null},
                {"vm": "bb", "state": "silent", "known": null, "reported_ago_s": null, "accepted": null, "pending": null, "error": "no answer\u{1b}[1m"},
            ],
        })
    }

    #[test]
    fn what_is_wrong_stands_first_with_what_to_do() {
        assert_eq!(
            screen(&degraded(), false, Palette::Plain),
            "sense 0.2.0  degraded  1 of 2 guests answer\n\
             \x20 ! Central is busy: 429\n\
             \x20   nothing: it takes reports again later; `rate` and `burst` may be set to its limits\n\
             \x20 ! dead letters: 2 (status --dead)\n\
             \x20   `afferent status --dead` lists them, `--retry VM` sends one again, `--drop VM` gives it up\n\
             \x20 ! x\\x1b[31m\n\
             \x20 guests   2: 1 silent, 1 waiting\n\
             \x20 pending  1 reactive, 2 dead, the oldest for 5m\n\
             \x20 deliver  http://c\n\
             \x20 sources  guests 2, name r\\x1b\n\n\
             GUEST  STATE    REPORT  AGE  ACCEPTED  PENDING  TRIGGER   SINCE  ERROR\n\
             bb     silent   -       -    -         -        -         -      no answer\\x1b[1m\n\
             a      waiting  7:2     66m  7:1       queued   reactive  5s\n"
        );
    }

    #[test]
    fn every_sink_has_the_advice_that_central_has() {
        for said in [
            "is unreachable: no route",
            "is unauthorized: 401",
            "is busy: 429",
            "is failing: 500",
        ] {
            let of_central = advice(&format!("Central {said}"));
            assert!(of_central.is_some(), "{said}");
            assert_eq!(advice(&format!("the sink siem {said}")), of_central);
        }
        let forbids = advice("guests whose reports the sink siem forbids: 3");
        assert_eq!(forbids, advice("guests whose reports Central forbids: 3"));
        assert!(forbids.is_some());
        let left = advice("reports for a sink old that is configured no more: 3 (...)");
        assert!(left.unwrap().contains("give up"));
        assert_eq!(advice("something new"), None);
    }

    /// Advice that belongs to nothing that a service says helps nobody.
    #[test]
    fn every_advice_belongs_to_a_reason_that_a_service_gives() {
        let services = [
            include_str!("../../sense/status.rs"),
            include_str!("../../sense/status/sinks.rs"),
            include_str!("../../sense/status/totals.rs"),
            include_str!("../../sense/reader/status.rs"),
            include_str!("../../serve/status.rs"),
            include_str!("../../mirror/status.rs"),
            include_str!("../../web/health.rs"),
        ];
        let services = services.concat();
        for (begin, _) in ADVICE {
            // As it stands in a format, behind the quotation mark or the kind that it is about.
            let written = match begin.strip_prefix("Central is ") {
                Some(reason) => {
                    assert!(services.contains(&format!("open(\"{reason}\")")), "{begin}");
                    "{} is {reason}".to_owned()
                }
                None if begin.ends_with(" API") => "{} API: {error}".to_owned(),
                None => begin.replace("Central", "{called}"),
            };
            let is_said = |before: &str| services.contains(&format!("\"{before}{written}"));
            assert!(is_said("") || is_said("{kind}: "), "{begin}");
        }
        let of_core = advice("Compute: what is expected was not read: 500");
        assert!(of_core.is_some_and(|said| said.contains("`core`")));
    }

    #[test]
    fn the_first_line_of_a_sensor_says_how_many_guests_answer() {
        for (states, said) in [
            (
                json!({"waiting": 2, "polled": 1, "idle": 4}),
                "3 of 3 guests answer",
            ),
            (
                json!({"waiting": 0, "failing": 2, "silent": 1}),
                "0 of 3 guests answer",
            ),
            (json!({"polled": 0, "new": 1}), "0 of 1 guest answers"),
            (json!({"waiting": 0, "idle": 1}), "no guest to ask"),
        ] {
            assert_eq!(answering(&states).as_deref(), Some(said));
        }
        assert_eq!(answering(&Value::Null), None, "an agent or a mirror");
    }

    /// Otherwise a guest could write onto the terminal of an operator, between our own colours.
    #[test]
    fn with_colours_no_escape_is_theirs() {
        let text = screen(&degraded(), false, Palette::Coloured);
        assert!(
            text.starts_with(
                "\x1b[1msense\x1b[0m 0.2.0  \x1b[1;31mdegraded\x1b[0m  1 of 2 guests answer\n"
            ),
            "{text}"
        );
        let ours = ["\x1b[1m", "\x1b[0m", "\x1b[1;31m", "\x1b[31m"];
        let rest = ours.iter().fold(text, |text, code| text.replace(code, ""));
        assert!(!rest.contains('\x1b'), "{rest}");
        let well = json!({"service": "serve", "version": "1", "state": "ok", "reasons": []});
        assert!(screen(&well, false, Palette::Coloured).contains("\x1b[32mok\x1b[0m"));
    }

    #[test]
    fn a_screen_has_few_guests_unless_they_are_asked_for() {
        let guests: Vec<Value> = (0..50)
            .map(|n| json!({"vm": format!("g{n:02}"), "state": "waiting"}))
            .collect();
        let answer = json!({"service": "sense", "version": "1", "state": "ok", "guests": guests});
        let few = screen(&answer, false, Palette::Plain);
        assert!(
            few.contains("g19") && !few.contains("g20") && few.contains("... and 30 more"),
            "{few}"
        );
        let all = screen(&answer, true, Palette::Plain);
        assert!(all.contains("g49") && !all.contains("more"), "{all}");
    }

    #[test]
    fn the_line_of_a_sink_says_what_is_pending_and_why_it_pauses() {
        let sink = json!({
            "deliver": "https://c", "trouble": {"reason": "busy"},
            "pending": {"routine": 2, "oldest_s": 3, "worst_case_wait_s": 9},
        });
        assert_eq!(
            sink_line(&sink),
            "https://c; pending: 2 routine, the oldest for 3s, a new routine report waits at most 9s; pauses: busy"
        );
        let well = json!({"deliver": "sbom:/d", "trouble": null, "pending": {"dead": 0}});
        assert_eq!(sink_line(&well), "sbom:/d; pending: nothing");
    }

    #[test]
    fn an_answer_to_a_wish_is_shown_as_it_is() {
        assert_eq!(
            screen(&json!({"retried": 2}), false, Palette::Plain),
            "  retried  2\n"
        );
    }
}
