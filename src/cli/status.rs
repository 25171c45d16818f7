//! `afferent status`: how a running service is doing.

use super::{DEGRADED, DONE, FAILED, complain, print_with};
use crate::telemetry::control;
use argh::FromArgs;
use serde_json::Value;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Where the units of the package have their sockets, and where a service without systemd has it.
const SOCKETS: [&str; 4] = [
    "/run/afferent/serve/control.sock",
    "/run/afferent/sense/control.sock",
    "/run/afferent/mirror/control.sock",
    "/var/lib/afferent/control.sock",
];

/// Say how the services on this machine are doing; 4 if one is not as it should be.
#[derive(FromArgs)]
#[argh(subcommand, name = "status", example = "afferent status --json")]
pub(super) struct StatusArgs {
    /// print JSON, one object a service
    #[argh(switch)]
    json: bool,
    /// only the service with this state directory
    #[argh(option, arg_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(args: &StatusArgs) -> u8 {
    let sockets: Vec<PathBuf> = match &args.state_dir {
        Some(dir) => vec![control::socket_of(dir)],
        None => SOCKETS.iter().map(PathBuf::from).collect(),
    };
    let mut answers = Vec::new();
    for socket in &sockets {
        match control::ask(socket, "status") {
            Ok(answer) => answers.push(answer),
            Err(error) if is_nobody(&error) => {}
            Err(error) => return complain(FAILED, &format!("{}: {error}", socket.display())),
        }
    }
    if answers.is_empty() {
        return complain(FAILED, &format!("no service answers at {}", list(&sockets)));
    }
    let printed = print_with(|out| {
        answers
            .iter()
            .try_for_each(|answer| show(answer, args.json, out))
    });
    let degraded = answers.iter().any(|answer| answer["state"] != "ok");
    match printed {
        DONE if degraded => DEGRADED,
        code => code,
    }
}

/// No service there, or one that was killed.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

fn show(answer: &Value, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{answer}");
    }
    lines("", answer, out)
}

/// One line a value; objects within objects are written with their path.
fn lines(path: &str, value: &Value, out: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            lines(&path, value, out)
        }),
        Value::Array(items) if items.is_empty() => Ok(()),
        Value::Array(items) => items.iter().try_for_each(|item| lines(path, item, out)),
        Value::Null => writeln!(out, "{path:<22} -"),
        Value::String(text) => writeln!(out, "{path:<22} {}", super::format::plain(text)),
        other => writeln!(out, "{path:<22} {other}"),
    }
}

fn list(sockets: &[impl AsRef<Path>]) -> String {
    let shown: Vec<_> = sockets
        .iter()
        .map(|s| s.as_ref().display().to_string())
        .collect();
    shown.join(", ")
}
