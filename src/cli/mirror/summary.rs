//! The summary of a cycle: for people or as JSON, and the exit code that it means.

use crate::cli::{DONE, FAILED, complain, print_with};
use crate::mirror::diagnostics::{Diagnostic, Summary};

/// Deletes were withheld by the guard.
const WITHHELD: u8 = 3;

/// Prints a summary and gives the exit code.
pub(super) fn print_summary(summary: &Summary, json: bool) -> u8 {
    let printed = print_with(|out| {
        if json {
            serde_json::to_writer(&mut *out, summary)?;
            return writeln!(out);
        }
        writeln!(
            out,
            "{:<11} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "type",
            "pulled",
            "new",
            "changed",
            "adopted",
            "revived",
            "deleted",
            "withheld",
            "skipped"
        )?;
        for (kind, c) in &summary.types {
            let skipped = c.skipped_invalid + c.skipped_name_taken;
            writeln!(
                out,
                "{kind:<11} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {skipped:>8}",
                c.pulled,
                c.inserted,
                c.updated,
                c.adopted,
                c.resurrected,
                c.soft_deleted,
                c.withheld_deletes
            )?;
        }
        for (kind, drift) in &summary.drift {
            let rows: Vec<String> = drift.rows.iter().map(|(k, n)| format!("{k} {n}")).collect();
            let state = if drift.complete {
                ""
            } else {
                " (not complete: old rows kept)"
            };
            writeln!(
                out,
                "drift of {kind}: {} devices {}{state}",
                drift.received,
                rows.join(", ")
            )?;
        }
        Ok(())
    });
    if !json {
        print_diagnostics(&summary.warnings, &summary.errors);
    }
    if printed == DONE {
        exit_code(summary)
    } else {
        printed
    }
}

/// Warnings and errors for people.
pub(super) fn print_diagnostics(warnings: &[Diagnostic], errors: &[Diagnostic]) {
    for (level, reports) in [("warning", warnings), ("error", errors)] {
        for report in reports {
            let of = report.kind.as_deref().unwrap_or("run");
            let about = match report.key.as_str() {
                "" => of.to_owned(),
                key => format!("{of} {key}"),
            };
            let what = format!("{level}: {about}: {} [{}]", report.message, report.code);
            let _ = complain(DONE, &what);
        }
    }
}

pub(super) fn exit_code(summary: &Summary) -> u8 {
    // Half a pull is no failure of its own, but neither has the type converged.
    if !summary.errors.is_empty() || !summary.incomplete.is_empty() {
        FAILED
    } else if summary.withheld.is_empty() {
        DONE
    } else {
        WITHHELD
    }
}
