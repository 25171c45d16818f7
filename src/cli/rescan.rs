//! `afferent rescan`: on a host, asks the sensor to pull guests in full now; in a guest, asks the agent for a scan
//! now. Whichever service has its control socket here is asked.

use super::native;
use super::status::{list, sockets};
use super::{FAILED, complain, is_nobody, print, print_data};
use crate::telemetry::control;
use argh::FromArgs;
use serde_json::Value;
use std::path::PathBuf;

/// Ask for a report now: on a host from its guests, in a guest from its agent.
#[derive(FromArgs)]
#[argh(subcommand, name = "rescan", example = "afferent rescan --vm web-1")]
pub(super) struct RescanArgs {
    /// on a host: only this guest
    #[argh(option, arg_name = "VM")]
    vm: Option<String>,
    /// only the service with this state directory, may be repeated
    #[argh(option, arg_name = "DIR", from_str_fn(native::path))]
    state_dir: Vec<PathBuf>,
    /// print JSON, one object a service
    #[argh(switch)]
    json: bool,
}

pub(super) fn run(args: &RescanArgs) -> u8 {
    let sockets = sockets(&args.state_dir);
    let question = match &args.vm {
        Some(vm) => format!("rescan {vm}"),
        None => "rescan".to_owned(),
    };
    let (mut refused, mut answers) = (None, Vec::new());
    for socket in &sockets {
        match control::ask(socket, &question) {
            Ok(answer) => match answer["error"].as_str() {
                // Another service may be the one that is meant: a mirror knows no guests.
                Some(error) => refused = Some(error.to_owned()),
                None => answers.push(answer),
            },
            Err(error) if is_nobody(&error) => {}
            Err(error) => return complain(FAILED, &format!("{}: {error}", socket.display())),
        }
    }
    match (answers.is_empty(), refused) {
        (true, Some(error)) => complain(FAILED, &error),
        (true, None) => complain(FAILED, &format!("no service answers at {}", list(&sockets))),
        (false, _) if args.json => {
            let mut all = answers.iter();
            print_data(|out| all.try_for_each(|answer| writeln!(out, "{answer}")))
        }
        (false, _) => {
            let lines: Vec<String> = answers.iter().map(line).collect();
            print(&lines.join("\n"))
        }
    }
}

fn line(answer: &Value) -> String {
    match answer["rescans"].as_u64() {
        Some(1) => "1 guest is asked for a full report".into(),
        Some(guests) => format!("{guests} guests are asked for a full report"),
        None => "the agent scans now".into(),
    }
}
