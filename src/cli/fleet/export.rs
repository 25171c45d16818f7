//! All guests with their packages, for programs: JSON, CSV, or a bill of materials of each.

use super::{Complaint, ExportArgs, print};
use crate::cli::{DONE, FAILED, complain, print_data};
use crate::report::VmId;
use crate::sense::deliver::sink::SbomSink;
use crate::sense::fleet::query::FleetQuery;
use serde_json::Value;

/// Names of guests that are left out, at most.
const MOST_NAMED: usize = 10;

/// How an export is written.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum ExportFormat {
    #[default]
    Json,
    Csv,
    CycloneDx,
}

impl std::str::FromStr for ExportFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "cyclonedx" => Ok(Self::CycloneDx),
            _ => Err("a format is json, csv or cyclonedx".into()),
        }
    }
}

pub(super) fn export(args: &ExportArgs) -> Result<u8, Complaint> {
    let format = args.format.unwrap_or_default();
    if args.json && format != ExportFormat::Json {
        let what = "--json is --format json: leave one of the two away";
        return Err(Complaint::usage(what));
    }
    if format == ExportFormat::CycloneDx {
        return bills_of_materials(args);
    }
    if args.output.is_some() {
        let what =
            "--output is the directory of --format cyclonedx; other formats go to standard output";
        return Err(Complaint::usage(what));
    }
    packages(args, format == ExportFormat::Csv)
}

/// One guest a line, within one array or below one head.
fn packages(args: &ExportArgs, is_csv: bool) -> Result<u8, Complaint> {
    let (mut fleet, mut after, mut is_first) = (args.fleet(), None, true);
    loop {
        let query = FleetQuery::Export {
            vm: args.vm.clone(),
            after,
        };
        let answer = fleet.ask(&query)?;
        after = answer["next"].as_str().map(str::to_owned);
        let is_last = after.is_none();
        let written = print_data(|out| {
            let guests = answer["guests"].as_array();
            if is_csv {
                print::csv(guests, is_first, out)?;
                is_first = false;
                return Ok(());
            }
            for guest in guests.into_iter().flatten() {
                let before = if is_first { "[\n" } else { ",\n" };
                write!(out, "{before}{guest}")?;
                is_first = false;
            }
            match (is_last, is_first) {
                (true, true) => writeln!(out, "[]")?,
                (true, false) => writeln!(out, "\n]")?,
                (false, _) => {}
            }
            Ok(())
        });
        if written != DONE || is_last {
            return Ok(written);
        }
    }
}

/// A document a line, or a file a guest.
fn bills_of_materials(args: &ExportArgs) -> Result<u8, Complaint> {
    let (mut fleet, mut after) = (args.fleet(), None);
    let directory = args.output.as_deref();
    let shown = |error| {
        let directory = directory.unwrap_or(std::path::Path::new("-"));
        Complaint::failed(&format!("{}: {error}", directory.display()))
    };
    let directory = directory.map(SbomSink::open).transpose().map_err(shown)?;
    let mut left_out = Vec::new();
    loop {
        let query = FleetQuery::Sbom {
            vm: args.vm.clone(),
            after,
        };
        let answer = fleet.ask(&query)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let guests = answer["guests"].as_array();
        for guest in guests.into_iter().flatten() {
            let document = text(&guest["document"]);
            let Some(directory) = &directory else {
                match print_data(|out| writeln!(out, "{document}")) {
                    DONE => continue,
                    code => return Ok(code),
                }
            };
            // It becomes the name of a file.
            let vm: VmId = text(&guest["vm"])
                .parse()
                .map_err(|e| Complaint::failed(&e))?;
            directory
                .store(vm.as_str(), document.as_bytes())
                .map_err(shown)?;
        }
        left_out.extend(
            answer["left_out"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text),
        );
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok(match left_out.as_slice() {
        [] => DONE,
        names => complain(FAILED, &not_exported(names)),
    })
}

fn not_exported(names: &[String]) -> String {
    let shown = names.get(..MOST_NAMED).unwrap_or(names).join(", ");
    let more = match names.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "left out, since no full report of it came since the upgrade: {shown}{more}; one comes by itself within \
         the refresh interval (4 h), or at once after `afferent rescan --vm VM`"
    )
}
