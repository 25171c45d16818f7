//! Flags as typed, one file per subcommand; each becomes a configuration once.
//!
//! Data goes to standard output, diagnostics to standard error, and the exit code says what to do
//! next: [`DONE`], [`FAILED`], [`USAGE`], [`CONFIGURATION`], [`DEGRADED`].

mod bill_of_materials;
mod check_config;
mod columns;
mod deliver;
mod fleet;
mod fleet_listen;
pub mod format;
mod kube;
mod mirror;
mod native;
pub mod options;
mod output;
mod pull;
mod rescan;
mod scan;
mod sense;
mod serve;
mod status;
mod web_listen;

use crate::visible::{visible, visible_bytes, visible_lines};
use argh::FromArgs;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};

/// Everything asked for was done.
pub const DONE: u8 = 0;
/// It failed; standard error says why.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// A configuration file or variable is wrong (`mirror`: deletes were withheld).
pub const CONFIGURATION: u8 = 3;
/// `status`: it runs, but not as it should.
pub const DEGRADED: u8 = 4;

/// `afferent --version`, also in every answer and report.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
const GIT_ID: &str = env!("AFFERENT_GIT_ID");

/// Name, version and commit of this program.
fn program() -> String {
    format!("afferent {VERSION} ({GIT_ID})")
}

/// Carries what is installed in every RPM-based VM to Central within a second of it changing.
#[derive(FromArgs)]
#[argh(example = "afferent scan --format json")]
struct Afferent {
    /// print the version and exit
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, once")]
enum Command {
    Scan(scan::ScanArgs),
    Serve(serve::ServeArgs),
    Pull(pull::PullArgs),
    Sense(sense::SenseArgs),
    Mirror(mirror::MirrorArgs),
    Fleet(fleet::FleetArgs),
    Rescan(rescan::RescanArgs),
    Status(status::StatusArgs),
    CheckConfig(check_config::CheckConfigArgs),
}

/// The settings of a command, for its configuration file and manual page.
pub fn settings(command: &str) -> &'static [options::Setting] {
    match command {
        "mirror" => mirror::SETTINGS,
        "sense" => sense::SETTINGS,
        "serve" => serve::SETTINGS,
        _ => &[],
    }
}

/// Runs the command line and gives the exit code.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let args: Vec<String> = args.skip(1).map(|arg| native::text(&arg)).collect();
    let args = with_input_last(args.iter().map(String::as_str).collect());
    let afferent = match Afferent::from_args(&["afferent"], &args) {
        Ok(afferent) => afferent,
        Err(early) if early.status.is_ok() => return print(early.output.trim_end()),
        Err(early) => {
            let what = format!(
                "{}\nsee {} --help",
                early.output.trim_end(),
                understood(&args)
            );
            return complain_in_lines(USAGE, &what);
        }
    };
    if afferent.version {
        return print(&program());
    }
    match afferent.command {
        Some(Command::Scan(args)) => scan::run(&args),
        Some(Command::Serve(args)) => serve::run(args),
        Some(Command::Pull(args)) => pull::run(&args),
        Some(Command::Sense(args)) => sense::run(args),
        Some(Command::Mirror(args)) => mirror::run(args),
        Some(Command::Fleet(args)) => fleet::run(&args),
        Some(Command::Rescan(args)) => rescan::run(&args),
        Some(Command::Status(args)) => status::run(&args),
        Some(Command::CheckConfig(args)) => check_config::run(&args),
        None => complain(USAGE, "a command is needed; see afferent --help"),
    }
}

/// The command that these arguments name, as far as there is one.
fn understood(args: &[&str]) -> String {
    let is_command = |words: &[&str]| {
        let asked = Afferent::from_args(&["afferent"], &[words, &["--help"]].concat());
        asked.is_err_and(|early| early.status.is_ok())
    };
    // Two commands have commands of their own.
    let most = match args.first() {
        Some(&("fleet" | "mirror")) => 2,
        _ => 1,
    };
    let words = args
        .iter()
        .take(most)
        .take_while(|arg| !arg.starts_with('-'));
    let mut words: Vec<&str> = words.copied().collect();
    while !words.is_empty() && !is_command(&words) {
        words.pop();
    }
    words.insert(0, "afferent");
    words.join(" ")
}

/// `-` names standard input, for `mirror load`; argh takes it for a flag unless it stands behind `--`.
fn with_input_last(mut args: Vec<&str>) -> Vec<&str> {
    if args.starts_with(&["mirror", "load"])
        && !args.contains(&"--")
        && let Some(at) = args.iter().position(|arg| *arg == "-")
    {
        args.remove(at);
        args.extend(["--", "-"]);
    }
    args
}

/// Writes a line to standard output. Nobody reading any more is no failure.
fn print(text: &str) -> u8 {
    print_with(|out| writeln!(out, "{text}"))
}

/// Lets `write` write lines for people to standard output, with what is not seen as escapes; gives the
/// exit code.
fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> u8 {
    exit_code(write_lines(write))
}

/// The same, and gives what became of it.
fn write_lines(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut bytes = Vec::new();
    write(&mut bytes)?;
    write_out(|out| out.write_all(visible_bytes(&bytes).as_bytes()))
}

/// Lets `write` write data for programs to standard output, byte for byte unless that is a terminal;
/// gives the exit code.
fn print_data(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> u8 {
    exit_code(write_data(write))
}

/// The same, and gives what became of it.
fn write_data(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    match io::stdout().is_terminal() {
        true => write_lines(write),
        false => write_out(write),
    }
}

/// The same as [`print_with`], with colours where standard output is a terminal and NO_COLOR does not forbid them.
/// With colours the text goes out as it is: `write` makes everything visible that is not its own.
fn print_coloured(write: impl FnOnce(bool, &mut dyn Write) -> io::Result<()>) -> u8 {
    let no_color = std::env::var_os("NO_COLOR");
    match has_colours(io::stdout().is_terminal(), no_color.as_deref()) {
        true => exit_code(write_out(|out| write(true, out))),
        false => print_with(|out| write(false, out)),
    }
}

/// Whether standard output gets colours; an empty NO_COLOR forbids nothing (no-color.org).
fn has_colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

fn write_out(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush())
}

fn exit_code(written: io::Result<()>) -> u8 {
    match written {
        Ok(()) => DONE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => complain(FAILED, &format!("cannot write the output: {error}")),
    }
}

/// Says on standard error, in one line, what people should know beside the output.
fn note(what: &str) {
    let _ = writeln!(io::stderr().lock(), "afferent: {}", visible(what));
}

/// Says on standard error, in one line, what went wrong, and gives the exit code back.
fn complain(code: u8, what: &str) -> u8 {
    note(what);
    code
}

/// The same of a message that has several lines, all of them ours or typed here.
fn complain_in_lines(code: u8, what: &str) -> u8 {
    let _ = writeln!(io::stderr().lock(), "afferent: {}", visible_lines(what));
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_told_whose_help_says_more() {
        for (args, command) in [
            (&["snac"][..], "afferent"),
            (&["--verson"], "afferent"),
            (&["scan", "extra"], "afferent scan"),
            (&["pull", "unix:/a", "--wait", "x"], "afferent pull"),
            (&["mirror", "--x"], "afferent mirror"),
            (&["mirror", "dirft"], "afferent mirror"),
            (&["mirror", "drift", "--x"], "afferent mirror drift"),
            (&["fleet", "find", "--x"], "afferent fleet find"),
        ] {
            assert_eq!(understood(args), command, "{args:?}");
        }
    }

    #[test]
    fn only_a_terminal_has_colours_and_no_color_forbids_them() {
        for (is_terminal, no_color, has) in [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("1"), false),
            (true, Some("0"), false),
            (false, None, false),
            (false, Some(""), false),
        ] {
            let shown = has_colours(is_terminal, no_color.map(OsStr::new));
            assert_eq!(shown, has, "{is_terminal} {no_color:?}");
        }
    }
}
