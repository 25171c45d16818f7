//! `afferent fleet`: questions about the packages of all guests.
//!
//! The running sensor answers on its control socket; where none runs, the same is read from `sense.redb`.

mod asking;
mod export;
mod print;

use super::{DONE, FAILED, USAGE, complain, native, write_data, write_lines};
use crate::clock::{self, WallTime};
use crate::sense::fleet::query::FleetQuery;
use crate::sense::fleet::query::find::PackageFilter;
use crate::sense::status::GUEST_STATES;
use argh::FromArgs;
use asking::Fleet;
use export::ExportFormat;
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks of `changes --follow`.
const FOLLOW: Duration = Duration::from_secs(1);

/// Every command has the same two flags, beside its own.
macro_rules! asking {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        #[derive(FromArgs)]
        $(#[$meta])*
        pub(super) struct $name {
            $($own)*
            /// directory of sense.redb (default /var/lib/afferent)
            #[argh(option, arg_name = "DIR", from_str_fn(native::path))]
            state_dir: Option<PathBuf>,
            /// print JSON
            #[argh(switch)]
            json: bool,
        }

        impl $name {
            fn fleet(&self) -> Fleet {
                Fleet::of(self.state_dir.clone(), self.json)
            }
        }
    };
}

asking! {
    /// Say what is installed in which guest, and what changed when; without a command, one line a guest.
    #[argh(subcommand, name = "fleet", example = "afferent fleet find 'openssl < 1:3.0.7-28.el9_4'")]
    FleetArgs {
        #[argh(subcommand)]
        command: Option<Command>,
        /// order of the list: name (default), os, packages, agent or changed, the newest first
        #[argh(option, arg_name = "COLUMN")]
        sort: Option<SortColumn>,
        /// only guests in this state: waiting, polled, new, failing, silent or idle
        #[argh(option, arg_name = "STATE")]
        state: Option<WantedState>,
        /// only guests of this OS, such as rhel, rhel-9 or rhel-9.4
        #[argh(option, arg_name = "OS")]
        os: Option<String>,
    }
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Find(FindArgs),
    Versions(VersionsArgs),
    Show(ShowArgs),
    Changes(ChangesArgs),
    Diff(DiffArgs),
    Export(ExportArgs),
    Login(LoginArgs),
}

asking! {
    /// List guests with a package, and the version that each has.
    #[argh(subcommand, name = "find", example = "afferent fleet find 'kernel' --running")]
    FindArgs {
        /// NAME, or NAME OP VERSION as rpm writes it (1:3.0.7-28.el9), OP one of < <= = >= > !=, in quotes
        #[argh(positional, arg_name = "package")]
        package: Vec<String>,
        /// only packages of this architecture
        #[argh(option, arg_name = "ARCH")]
        arch: Option<String>,
        /// only guests of this OS, such as rhel, rhel-9 or rhel-9.4
        #[argh(option, arg_name = "OS")]
        os: Option<String>,
        /// the guests of which no package matches
        #[argh(switch)]
        not: bool,
        /// only guests whose running kernel is not the newest of these packages
        #[argh(switch)]
        running: bool,
    }
}

asking! {
    /// List every version of a package with the number of guests; without a name, the packages of most versions.
    #[argh(subcommand, name = "versions", example = "afferent fleet versions --os rhel-9")]
    VersionsArgs {
        /// name of the package
        #[argh(positional)]
        name: Option<String>,
        /// only guests of this OS, such as rhel, rhel-9 or rhel-9.4
        #[argh(option, arg_name = "OS")]
        os: Option<String>,
    }
}

asking! {
    /// Show a guest: its facts, history and packages.
    #[argh(subcommand, name = "show")]
    ShowArgs {
        /// id of the guest
        #[argh(positional)]
        vm: String,
        /// its packages at this time, such as 2026-11-21T10:00:00Z
        #[argh(option, arg_name = "TIME")]
        at: Option<WallTime>,
    }
}

asking! {
    /// List what changed, the oldest first.
    #[argh(subcommand, name = "changes", example = "afferent fleet changes --since 1h --follow")]
    ChangesArgs {
        /// only from this time on, such as 2026-11-21T10:00:00Z, or for this long, such as 1h
        #[argh(option, arg_name = "TIME|DURATION")]
        since: Option<Since>,
        /// only of this guest
        #[argh(option, arg_name = "VM")]
        vm: Option<String>,
        /// only of this package
        #[argh(option, arg_name = "NAME")]
        package: Option<String>,
        /// go on with what comes
        #[argh(switch)]
        follow: bool,
    }
}

asking! {
    /// Show how the packages of two guests differ.
    #[argh(subcommand, name = "diff")]
    DiffArgs {
        /// id of the first guest
        #[argh(positional)]
        from: String,
        /// id of the second guest
        #[argh(positional)]
        to: String,
    }
}

asking! {
    /// Write all guests with their packages, for programs.
    #[argh(subcommand, name = "export")]
    ExportArgs {
        /// json (default), csv, or cyclonedx: a bill of materials of each guest, one a line
        #[argh(option, arg_name = "json|csv|cyclonedx")]
        format: Option<ExportFormat>,
        /// directory for cyclonedx: a file VM.cdx.json of each guest
        #[argh(option, arg_name = "DIR", from_str_fn(native::path))]
        output: Option<PathBuf>,
        /// only this guest
        #[argh(option, arg_name = "VM")]
        vm: Option<String>,
    }
}

asking! {
    /// Print an address that lets a browser in, once and within five minutes; asks the running sensor.
    #[argh(subcommand, name = "login")]
    LoginArgs {}
}

/// A column of the list of guests.
#[derive(Clone, Copy, Default)]
enum SortColumn {
    #[default]
    Name,
    Os,
    Packages,
    Agent,
    Changed,
}

impl std::str::FromStr for SortColumn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "name" => Self::Name,
            "os" => Self::Os,
            "packages" => Self::Packages,
            "agent" => Self::Agent,
            "changed" => Self::Changed,
            _ => return Err("a column is name, os, packages, agent or changed".into()),
        })
    }
}

/// A state of guests, as a running sensor has them.
struct WantedState(&'static str);

impl std::str::FromStr for WantedState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = GUEST_STATES.into_iter().find(|known| *known == text);
        let wrong = || format!("a state is one of {}", GUEST_STATES.join(", "));
        known.map(Self).ok_or_else(wrong)
    }
}

/// From when on.
struct Since(WallTime);

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        clock::time_or_age(text, clock::wall_now()).map(Self)
    }
}

/// Ends the command with a code after its message.
pub(super) struct Complaint {
    code: u8,
    what: String,
}

impl Complaint {
    fn failed(what: &(impl ToString + ?Sized)) -> Self {
        Self {
            code: FAILED,
            what: what.to_string(),
        }
    }

    fn usage(what: &(impl ToString + ?Sized)) -> Self {
        Self {
            code: USAGE,
            what: what.to_string(),
        }
    }
}

pub(super) fn run(args: &FleetArgs) -> u8 {
    let of_list = args.sort.is_some() || args.state.is_some() || args.os.is_some();
    if args.command.is_some() && (of_list || args.json || args.state_dir.is_some()) {
        return complain(
            USAGE,
            "flags of a command of `fleet` stand behind the command",
        );
    }
    let done = match &args.command {
        None => list(args),
        Some(Command::Find(args)) => find(args),
        Some(Command::Versions(args)) => {
            let (fleet, os) = (args.fleet(), args.os.clone());
            match args.name.clone() {
                Some(name) => fleet.tell(&FleetQuery::Versions { name, os }, print::versions),
                None => fleet.tell(&FleetQuery::Drift { os }, print::drift),
            }
        }
        Some(Command::Show(args)) => {
            let query = FleetQuery::Show {
                vm: args.vm.clone(),
                at: args.at.map(WallTime::unix_ms),
            };
            args.fleet().tell(&query, print::show)
        }
        Some(Command::Changes(args)) => changes(args),
        Some(Command::Diff(args)) => {
            let vms = (args.from.clone(), args.to.clone());
            args.fleet().tell(&FleetQuery::Diff { vms }, print::diff)
        }
        Some(Command::Export(args)) => export::export(args),
        Some(Command::Login(args)) => login(args),
    };
    done.unwrap_or_else(|complaint| complain(complaint.code, &complaint.what))
}

fn list(args: &FleetArgs) -> Result<u8, Complaint> {
    let query = FleetQuery::Guests {
        os: args.os.clone(),
    };
    let mut fleet = args.fleet();
    let mut answer = fleet.ask(&query)?;
    if args.state.is_some() && !fleet.is_running() {
        let what = "no sensor runs here, so that guests have no state; leave --state away";
        return Err(Complaint::failed(what));
    }
    if let Some(guests) = answer["guests"].as_array_mut() {
        guests.retain(|guest| {
            let state = guest["state"].as_str();
            let wanted = args.state.as_ref();
            wanted.is_none_or(|wanted| state == Some(wanted.0))
        });
        let text = |guest: &Value, key: &str| guest[key].as_str().unwrap_or_default().to_owned();
        match args.sort.unwrap_or_default() {
            SortColumn::Name => {}
            SortColumn::Os => guests.sort_by_key(|guest| text(guest, "os")),
            SortColumn::Packages => {
                guests.sort_by_key(|guest| std::cmp::Reverse(guest["packages"].as_u64()));
            }
            SortColumn::Agent => guests.sort_by_key(|guest| text(guest, "agent")),
            SortColumn::Changed => {
                guests.sort_by_key(|guest| std::cmp::Reverse(text(guest, "changed_at")));
            }
        }
    }
    Ok(fleet.print(&answer, print::guests))
}

fn find(args: &FindArgs) -> Result<u8, Complaint> {
    let text = args.package.join(" ");
    let package: PackageFilter = text.parse().map_err(|error| Complaint::usage(&error))?;
    let query = FleetQuery::Find {
        package: package.to_string(),
        arch: args.arch.clone(),
        os: args.os.clone(),
        not: args.not,
        running: args.running,
    };
    args.fleet().tell(&query, print::found)
}

fn changes(args: &ChangesArgs) -> Result<u8, Complaint> {
    let mut fleet = args.fleet();
    if args.follow && !fleet.reaches_service() {
        let what = "no sensor runs here, so that nothing can change; leave --follow away";
        return Err(Complaint::failed(what));
    }
    let mut after = None;
    loop {
        let query = FleetQuery::Changes {
            since: args.since.as_ref().map(|since| since.0.unix_ms()),
            vm: args.vm.clone(),
            package: args.package.clone(),
            after,
        };
        let answer = fleet.ask(&query)?;
        for change in answer["changes"].as_array().into_iter().flatten() {
            let written = match args.json {
                true => write_data(|out| writeln!(out, "{change}")),
                false => write_lines(|out| print::change(change, out)),
            };
            match written {
                Ok(()) => {}
                // Nobody reads any more.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(DONE),
                Err(error) => {
                    let what = format!("cannot write the output: {error}");
                    return Err(Complaint::failed(&what));
                }
            }
        }
        after = answer["next"].as_u64().or(after);
        if answer["more"] == true {
            continue;
        }
        if !args.follow {
            return Ok(DONE);
        }
        std::thread::sleep(FOLLOW);
    }
}

fn login(args: &LoginArgs) -> Result<u8, Complaint> {
    let fleet = args.fleet();
    let answer = fleet.ask_service("login")?;
    Ok(fleet.print(&answer, print::login))
}
