//! `afferent rescan`: on a host, asks the sensor to pull guests in full now; in a guest, lets the agent scan now and
//! says what it found. Whichever service has its control socket here is asked.

use super::native;
use super::status::{nobody, sockets, state_dirs};
use super::{DONE, FAILED, complain, print_data, print_with};
use crate::report::VmId;
use crate::telemetry::control;
use argh::FromArgs;
use serde_json::Value;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two questions whether the scan has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Questions after which it is said what is waited for.
const PATIENCE: u32 = 50;

/// Ask for a report now: on a host from its guests, in a guest from its agent.
#[derive(FromArgs)]
#[argh(subcommand, name = "rescan", example = "afferent rescan --vm web-1")]
pub(super) struct RescanArgs {
    /// on a host: only this guest
    #[argh(option, arg_name = "VM")]
    vm: Option<VmId>,
    /// only the service with this state directory, may be repeated (default: AFFERENT_STATE_DIR, else those of the package)
    #[argh(option, arg_name = "DIR", from_str_fn(native::path))]
    state_dir: Vec<PathBuf>,
    /// in a guest: do not wait for the scan
    #[argh(switch)]
    no_wait: bool,
    /// print JSON, one object a service
    #[argh(switch)]
    json: bool,
}

pub(super) fn run(args: &RescanArgs) -> u8 {
    match rescan(args) {
        Ok(code) => code,
        Err(why) => complain(FAILED, &why),
    }
}

fn rescan(args: &RescanArgs) -> Result<u8, String> {
    let answers = answers(args)?;
    let mut all = answers.iter();
    let printed = match args.json {
        true => print_data(|out| all.try_for_each(|answer| writeln!(out, "{answer}"))),
        false => print_with(|out| all.try_for_each(|answer| show(answer, out))),
    };
    let mut failed = answers.iter().filter_map(|answer| answer["error"].as_str());
    match failed.next() {
        Some(error) if printed == DONE => Err(format!("the scan failed: {error}")),
        _ => Ok(printed),
    }
}

/// What the services here answer: an agent, when its scan has ended.
fn answers(args: &RescanArgs) -> Result<Vec<Value>, String> {
    let sockets = sockets(&state_dirs(&args.state_dir));
    let question = match &args.vm {
        Some(vm) => format!("rescan {vm}"),
        None => "rescan".to_owned(),
    };
    let (mut refused, mut answers) = (None, Vec::new());
    for socket in &sockets {
        match control::ask(socket, &question) {
            Ok(answer) => match (answer["error"].as_str(), answer["scan"].as_u64()) {
                // Another service may be the one that is meant: a mirror knows no guests.
                (Some(error), _) => refused = Some(error.to_owned()),
                (None, Some(scan)) if !args.no_wait => answers.push(wait(socket, scan)?),
                (None, _) => answers.push(answer),
            },
            Err(error) if control::is_not_running(&error) => {}
            Err(error) => return Err(format!("{}: {error}", socket.display())),
        }
    }
    match (answers.is_empty(), refused) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(nobody(&sockets)),
        (false, _) => Ok(answers),
    }
}

/// Waits for the end of the scan with this number.
fn wait(socket: &Path, number: u64) -> Result<Value, String> {
    for asked in 1u32.. {
        let answer = control::ask(socket, &format!("scan {number}"))
            .map_err(|error| format!("{}: the agent is gone: {error}", socket.display()))?;
        if !answer["result"].is_null() || answer["error"].is_string() {
            return Ok(answer);
        }
        if let (PATIENCE, Some(pid)) = (asked, answer["transaction"].as_i64()) {
            let what = format!("waiting for the rpm transaction of process {pid}");
            complain(DONE, &what);
        }
        std::thread::sleep(PAUSE);
    }
    Err("the scan does not end".into())
}

fn show(answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    match answer["rescans"].as_u64() {
        Some(1) => return writeln!(out, "1 guest is asked for a full report"),
        Some(guests) => return writeln!(out, "{guests} guests are asked for a full report"),
        None => {}
    }
    let report = answer["report"].as_str().unwrap_or("none");
    match (answer["result"].as_str(), answer["changed"].as_u64()) {
        (Some("same"), _) => writeln!(out, "nothing changed since report {report}"),
        (Some("new"), None) => writeln!(out, "first report {report}"),
        (Some("new"), Some(0)) => {
            writeln!(
                out,
                "new report {report}: no package changed, but something about them did"
            )
        }
        (Some("new"), Some(changed)) => changes(report, changed, &answer["changes"], out),
        (Some(_), _) => Ok(()),
        (None, _) => writeln!(out, "the agent scans now"),
    }
}

fn changes(report: &str, changed: u64, lines: &Value, out: &mut dyn Write) -> io::Result<()> {
    let plural = if changed == 1 { "" } else { "s" };
    writeln!(
        out,
        "new report {report}: {changed} package{plural} changed"
    )?;
    let lines = lines.as_array().map(Vec::as_slice).unwrap_or_default();
    for line in lines.iter().filter_map(Value::as_str) {
        writeln!(out, "  {line}")?;
    }
    match changed.saturating_sub(u64::try_from(lines.len()).unwrap_or(u64::MAX)) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}
