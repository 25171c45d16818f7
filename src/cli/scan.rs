//! `afferent scan`: what is installed here, or below a root, once.

use super::bill_of_materials;
use super::native;
use super::output::Output;
use super::{CONFIGURATION, DONE, FAILED, complain, format};
use crate::clock::{self, WallTime};
use crate::report::facts;
use crate::sbom::{BomFormat, Subject};
use crate::scan::{self, Lock, Mode, OnLock, ScanRequest, Scanned, Scanner};
use crate::visible::visible;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
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
    /// table, json, tsv, or a bill of materials: cyclonedx (1.6) or spdx (2.3), both JSON (default: table)
    #[argh(
        option,
        arg_name = "table|json|tsv|cyclonedx|spdx",
        default = "Format::Table"
    )]
    format: Format,
    /// write to this file, which is replaced once all is there (default: standard output)
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    output: Option<PathBuf>,
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
    /// A bill of materials.
    Bom(BomFormat),
}

impl argh::FromArgValue for Format {
    fn from_arg_value(value: &str) -> Result<Self, String> {
        match value {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "tsv" => Ok(Self::Tsv),
            "cyclonedx" => Ok(Self::Bom(BomFormat::CycloneDx)),
            "spdx" => Ok(Self::Bom(BomFormat::Spdx)),
            _ => Err("must be table, json, tsv, cyclonedx or spdx".into()),
        }
    }
}

/// Scans once and writes the packages where they are wanted.
pub(super) fn run(args: &ScanArgs) -> u8 {
    let at = match (args.format, bill_of_materials::time()) {
        (Format::Bom(_), Err(error)) => return complain(CONFIGURATION, &error),
        (_, at) => at.unwrap_or_default(),
    };
    let request = ScanRequest {
        root: &args.root,
        dbpath: args.dbpath.as_deref(),
        retry_for: RETRY_FOR,
        on_lock: OnLock::Wait,
    };
    let mode = match args.format {
        Format::Bom(_) => Mode::Detailed,
        _ => Mode::Once,
    };
    let begun = clock::wall_now();
    let scanned = match Scanner::new().scan(&request, mode) {
        Ok(scanned) => scanned,
        Err(error) => return complain(FAILED, &error.to_string()),
    };
    if scanned.report.packages.is_empty() {
        let path = scanned.main_file.display();
        let why = "the rpm database is new and holds no package yet";
        return complain(FAILED, &format!("{path}: {why}"));
    }
    remarks(&scanned);
    let output = Output::new(args.output.as_deref());
    let code = match args.format {
        Format::Table => output.lines(|out| format::table(&scanned.report, out)),
        Format::Tsv => output.data(|out| format::tsv(&scanned.report, out)),
        Format::Json => output.data(|out| json(&scanned, out)),
        Format::Bom(bom) => {
            let document = bill(&scanned, &args.root, at.or(begun), bom);
            output.data(|out| out.write_all(&document))
        }
    };
    // The process ends now: nobody needs the memory of thousands of strings given back one by one.
    std::mem::forget(scanned);
    code
}

fn json(scanned: &Scanned, out: &mut dyn Write) -> io::Result<()> {
    let mut facts = scanned.beside.facts.clone();
    let provenance = scanned.provenance.fact();
    facts.insert(facts::PROVENANCE.into(), provenance.into());
    format::json(&scanned.report, &facts, out)
}

/// The bill of materials of what is below `root`, named after the system there.
fn bill(scanned: &Scanned, root: &Path, at: WallTime, format: BomFormat) -> Vec<u8> {
    let name = scan::host_name(root).or_else(|| Some(scan::guest_id(root)?.to_string()));
    let subject = Subject {
        report: &scanned.report,
        digest: scanned.report.digest(),
        host: name.as_deref().unwrap_or(bill_of_materials::NO_NAME),
        at,
        id_like: &scanned.beside.id_like,
        details: &scanned.beside.details,
    };
    bill_of_materials::write(&subject, format)
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
