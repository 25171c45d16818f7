//! `afferent status`: asks running services how they are.

mod screen;

use super::native;
use super::{DEGRADED, DONE, FAILED, USAGE, complain, print, print_coloured, print_data, program};
use crate::telemetry::bundle::{self, BundleSources};
use crate::telemetry::control;
use argh::FromArgs;
use screen::Palette;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where the units of the package have their sockets, and where a service without systemd has it.
const USUAL: [&str; 4] = [
    "/run/afferent/serve/control.sock",
    "/run/afferent/sense/control.sock",
    "/run/afferent/mirror/control.sock",
    "/var/lib/afferent/control.sock",
];

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
    /// drop what is left of this sink, which is configured no more
    #[argh(option, arg_name = "NAME")]
    drop_sink: Option<String>,
    /// write status, configuration, metrics, log and file sizes, with secrets masked, to this tar file
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    bundle: Option<PathBuf>,
}

pub(super) fn run(args: &StatusArgs) -> u8 {
    let sockets = sockets(&args.state_dir);
    if let Some(file) = &args.bundle {
        if args.retry.is_some() || args.drop.is_some() || args.drop_sink.is_some() {
            let error = "--bundle cannot be given with --retry, --drop or --drop-sink";
            return complain(USAGE, error);
        }
        return write_bundle(file, &sockets, &args.state_dir);
    }
    let mut answers = Vec::new();
    for socket in &sockets {
        match control::ask(socket, &question(args)) {
            Ok(answer) => answers.push(filtered(answer, args)),
            Err(error) if control::is_not_running(&error) => {}
            Err(error) => return complain(FAILED, &format!("{}: {error}", socket.display())),
        }
    }
    if answers.is_empty() {
        return complain(FAILED, &format!("no service answers at {}", list(&sockets)));
    }
    let mut all = answers.iter();
    let written = match args.json {
        true => print_data(|out| all.try_for_each(|answer| writeln!(out, "{answer}"))),
        false => print_coloured(|is_coloured, out| {
            let palette = match is_coloured {
                true => Palette::Coloured,
                false => Palette::Plain,
            };
            let is_asked = args.vm.is_some() || args.state.is_some() || args.dead;
            all.try_for_each(|answer| screen::write(answer, is_asked, palette, out))
        }),
    };
    // What is no status, the answer to a wish for example, has no state.
    let is_well = |answer: &Value| answer["state"].as_str().is_none_or(|state| state == "ok");
    match written {
        DONE if !answers.iter().all(is_well) => DEGRADED,
        code => code,
    }
}

fn write_bundle(file: &Path, sockets: &[PathBuf], state_dirs: &[PathBuf]) -> u8 {
    let sources = BundleSources {
        sockets,
        state_dirs,
        program: &program(),
        path: native::path,
    };
    let shown = file.display();
    match bundle::write(file, sources) {
        Ok(services) => print(&format!("{shown}: {services} services, secrets masked")),
        Err(error) => complain(FAILED, &format!("cannot write {shown}: {error}")),
    }
}

pub(super) fn sockets(given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() {
        return USUAL.iter().map(PathBuf::from).collect();
    }
    given.iter().map(|dir| control::socket_of(dir)).collect()
}

pub(super) fn list(sockets: &[PathBuf]) -> String {
    let shown: Vec<_> = sockets.iter().map(|s| s.display().to_string()).collect();
    shown.join(", ")
}

fn question(args: &StatusArgs) -> String {
    if let Some(vm) = &args.drop {
        return format!("drop {vm}");
    }
    if let Some(sink) = &args.drop_sink {
        return format!("drop-sink {sink}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
