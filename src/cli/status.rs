//! `afferent status`: asks running services how they are.

mod screen;

use super::native;
use super::{
    DEGRADED, DONE, FAILED, USAGE, complain, print, print_coloured, print_data, print_with, program,
};
use crate::report::VmId;
use crate::sense::SinkName;
use crate::sense::status::GUEST_STATES;
use crate::telemetry::bundle::{self, BundleSources};
use crate::telemetry::control;
use argh::FromArgs;
use screen::Palette;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the units of the package have their sockets, and where a service without systemd has it.
const USUAL: [&str; 4] = [
    "/run/afferent/serve/control.sock",
    "/run/afferent/sense/control.sock",
    "/run/afferent/mirror/control.sock",
    "/var/lib/afferent/control.sock",
];

/// The state of a guest that left the roster while something of it was not delivered.
const DEPARTED: &str = "departed";

/// With `--retry`: the dead letters of every guest.
const ALL: &str = "all";

/// Say how the services on this machine are doing; 4 if one is not as it should be.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "status",
    example = "afferent status --state silent"
)]
pub(super) struct StatusArgs {
    /// only the service with this state directory, may be repeated (default: AFFERENT_STATE_DIR, else those of the package)
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
    /// only guests in this state: waiting, polled, new, failing, silent, idle or departed
    #[argh(option, arg_name = "STATE")]
    state: Option<ShownState>,
    /// send dead letters again: those of this guest, or all
    #[argh(option, arg_name = "VM|all")]
    retry: Option<VmId>,
    /// drop the dead letter of this guest, for good
    #[argh(option, arg_name = "VM")]
    drop: Option<VmId>,
    /// drop what is left of this sink, which is configured no more
    #[argh(option, arg_name = "NAME")]
    drop_sink: Option<SinkName>,
    /// write status, configuration, metrics, log and file sizes, with secrets masked, to this tar file
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    bundle: Option<PathBuf>,
}

/// A state in which a guest is shown.
struct ShownState(&'static str);

impl FromStr for ShownState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut states = GUEST_STATES.into_iter().chain([DEPARTED]);
        let known = states.find(|known| *known == text);
        let wrong = || format!("a state is one of {}, {DEPARTED}", GUEST_STATES.join(", "));
        known.map(Self).ok_or_else(wrong)
    }
}

impl StatusArgs {
    /// Whether a sensor is to do something, instead of saying how it is.
    fn is_wish(&self) -> bool {
        self.retry.is_some() || self.drop.is_some() || self.drop_sink.is_some()
    }
}

pub(super) fn run(args: &StatusArgs) -> u8 {
    let state_dirs = state_dirs(&args.state_dir);
    let sockets = sockets(&state_dirs);
    if let Some(file) = &args.bundle {
        if args.is_wish() {
            let error = "--bundle cannot be given with --retry, --drop or --drop-sink";
            return complain(USAGE, error);
        }
        return write_bundle(file, &sockets, &state_dirs);
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
        return complain(FAILED, &nobody(&sockets));
    }
    if args.is_wish() {
        return fulfilled(args, answers, &sockets);
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
    match written {
        DONE if !answers.iter().all(|answer| answer["state"] == "ok") => DEGRADED,
        code => code,
    }
}

/// Says what became of a wish.
fn fulfilled(args: &StatusArgs, mut answers: Vec<Value>, sockets: &[PathBuf]) -> u8 {
    // Agents and mirrors have no dead letters: they say how they are.
    answers.retain(|answer| answer.get("service").is_none());
    if answers.is_empty() {
        let at = list(sockets);
        return complain(
            FAILED,
            &format!("no sensor answers at {at}; nothing was done"),
        );
    }
    let mut all = answers.iter();
    let has_failed = |answer: &&Value| answer.get("error").is_some();
    let written = match args.json {
        true => print_data(|out| all.try_for_each(|answer| writeln!(out, "{answer}"))),
        false => print_with(|out| {
            let mut done = all.filter(|answer| !has_failed(answer));
            done.try_for_each(|answer| screen::write(answer, false, Palette::Plain, out))
        }),
    };
    let failed = answers.iter().find(has_failed);
    if let Some(error) = failed.and_then(|answer| answer["error"].as_str()) {
        return complain(FAILED, error);
    }
    let has_done = |answer: &Value| answer["retried"] != 0 && answer["dropped"] != 0;
    match [&args.retry, &args.drop].into_iter().flatten().next() {
        Some(vm) if vm.as_str() != ALL && !answers.iter().any(has_done) => {
            let what =
                format!("{vm} has no dead letter; `afferent status --dead` lists those that have");
            complain(FAILED, &what)
        }
        _ => written,
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
        Ok(1) => print(&format!("{shown}: 1 service, secrets masked")),
        Ok(services) => print(&format!("{shown}: {services} services, secrets masked")),
        Err(error) => complain(FAILED, &format!("cannot write {shown}: {error}")),
    }
}

/// The directories that were typed, else that of the environment; none stands for the usual ones.
pub(super) fn state_dirs(given: &[PathBuf]) -> Vec<PathBuf> {
    match given {
        [] => native::state_dir().into_iter().collect(),
        given => given.to_vec(),
    }
}

/// Where the services with these directories are asked; none stands for the usual ones.
pub(super) fn sockets(given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() {
        return USUAL.iter().map(PathBuf::from).collect();
    }
    given.iter().map(|dir| control::socket_of(dir)).collect()
}

/// What is said where no service runs.
pub(super) fn nobody(sockets: &[PathBuf]) -> String {
    let at = list(sockets);
    format!("no service answers at {at}; start one, or name its directory with --state-dir")
}

fn list(sockets: &[PathBuf]) -> String {
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
        (Some(vm), _) if vm.as_str() == ALL => "retry".into(),
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
            let state = args.state.as_ref().map(|state| state.0);
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
    fn a_state_that_no_guest_has_is_refused_with_those_that_there_are() {
        for state in GUEST_STATES.into_iter().chain([DEPARTED]) {
            let args = StatusArgs::from_args(&["status"], &["--state", state]);
            let shown = args.ok().and_then(|args| args.state);
            assert_eq!(shown.map(|shown| shown.0), Some(state));
        }
        let refused = StatusArgs::from_args(&["status"], &["--state", "asleep"]);
        let said = refused.err().unwrap().output;
        let states = "waiting, polled, new, failing, silent, idle, departed";
        assert!(said.contains(states), "{said}");
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
