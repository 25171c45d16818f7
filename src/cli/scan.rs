//! `afferent scan`: what is installed here, or below a root, once.

use super::native;
use super::{DONE, FAILED, complain, format, print_data, print_with};
use crate::scan::{Lock, Mode, OnLock, ScanRequest, Scanned, Scanner};
use crate::visible::visible;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

/// How long a scan by hand waits for a running transaction.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// List what is installed, read from the rpm database without touching it.
#[derive(argh::FromArgs, Debug)]
#[argh(subcommand, name = "scan")]
pub(super) struct ScanArgs {
    /// root of the system to scan (default: /)
    #[argh(
        option,
        arg_name = "DIR",
        default = "PathBuf::from(\"/\")",
        from_str_fn(native::path)
    )]
    root: PathBuf,
    /// directory of the rpm database below the root (default: the first of usr/lib/sysimage/rpm,
    /// var/lib/rpm, usr/share/rpm)
    #[argh(option, arg_name = "DIR", from_str_fn(native::path))]
    dbpath: Option<PathBuf>,
    /// table, json or tsv (default: table)
    #[argh(option, arg_name = "table|json|tsv", default = "Format::Table")]
    format: Format,
}

/// How the packages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Aligned columns for people.
    Table,
    /// The report object that Central is sent, with facts.
    Json,
    /// One line a package, the columns of `rpm -qa --qf`.
    Tsv,
}

impl argh::FromArgValue for Format {
    fn from_arg_value(value: &str) -> Result<Self, String> {
        match value {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "tsv" => Ok(Self::Tsv),
            "cyclonedx" => Err("cyclonedx is not available yet; use json".into()),
            _ => Err("must be table, json or tsv".into()),
        }
    }
}

/// Scans once and writes the packages to standard output.
pub(super) fn run(args: &ScanArgs) -> u8 {
    let request = ScanRequest {
        root: &args.root,
        dbpath: args.dbpath.as_deref(),
        retry_for: RETRY_FOR,
        on_lock: OnLock::Wait,
    };
    let scanned = match Scanner::new().scan(&request, Mode::Once) {
        Ok(scanned) => scanned,
        Err(error) => return complain(FAILED, &error.to_string()),
    };
    if scanned.report.packages.is_empty() {
        let path = scanned.main_file.display();
        let why = "the rpm database is new and holds no package yet";
        return complain(FAILED, &format!("{path}: {why}"));
    }
    remarks(&scanned);
    let write = |out: &mut dyn Write| write(&scanned, args.format, out);
    let code = match args.format {
        Format::Table => print_with(write),
        Format::Tsv | Format::Json => print_data(write),
    };
    // The process ends now: nobody needs the memory of thousands of strings given back one by one.
    std::mem::forget(scanned);
    code
}

fn write(scanned: &Scanned, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let report = &scanned.report;
    match format {
        Format::Table => format::table(report, out),
        Format::Tsv => format::tsv(report, out),
        Format::Json => format::json(report, scanned.provenance.fact(), out),
    }
}

/// What the reader of the list has to know about it.
fn remarks(scanned: &Scanned) {
    let path = scanned.main_file.display();
    for skipped in &scanned.skipped {
        complain(DONE, &format!("{path}: left out: {}", skipped.why));
    }
    if !scanned.skipped.is_empty() {
        let (left_out, all) = (scanned.skipped.len(), scanned.stats.headers);
        let what = format!(
            "{path}: the list is not complete: {left_out} of {all} package headers are damaged; \
             `rpmdb --rebuilddb` may repair them"
        );
        complain(DONE, &what);
    }
    if let Some(why) = scanned.provenance.trouble() {
        let what = "packages are listed without the repositories that this history names";
        complain(DONE, &format!("{}; {what}", visible(why)));
    }
    if let Some(why) = scanned.no_history {
        complain(
            DONE,
            &format!("packages are listed without repositories: {why}"),
        );
    }
    if let Some(why) = &scanned.distribution_trouble {
        complain(DONE, &visible(why));
    }
    if scanned.stats.lock == Lock::Unknown {
        complain(
            DONE,
            "the lock file of rpm may not be read: a running transaction would not be noticed",
        );
    }
}
