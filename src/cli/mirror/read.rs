//! Commands that need the tables only.

use super::args::SETTINGS;
use super::beside::{ask, look, must_exist};
use super::settings::open_store;
use super::{DONE, FAILED, Stop, USAGE, complain, print_while_read, print_with};
use crate::cli::native;
use crate::cli::options::{ConfigError, Settings, settings};
use crate::clock;
use crate::mirror::policy::Profile;
use crate::mirror::query::{self, AuditFilter, AuditView, DriftFilter};
use crate::mirror::{self, dump::LoadError, lost};
use crate::visible::visible;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Commands over the tables have the same two flags, beside their own. The profile is taken too, so
/// that one set of flags serves `run` and what is asked before and after it; tables are the same
/// under every profile.
macro_rules! reading {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        settings! {
            common {
                settings { include mirror_state_dir; }
                flags {
                    /// print JSON
                    #[argh(switch)]
                    json: bool,
                    /// natural-key or host-mac; both show the same tables
                    #[argh(option, hidden_help)]
                    #[allow(dead_code, reason = "checked when it is parsed, and of no further use")]
                    profile: Option<Profile>,
                }
            }
            $(#[$meta])*
            pub(super) struct $name {
                before { $($own)* }
                settings {}
            }
        }

        impl $name {
            /// The flag, else the environment, else the default.
            fn state_dir(&self) -> Result<PathBuf, ConfigError> {
                let given = self.given();
                Settings::gather(SETTINGS, given, native::variable, None, &[])?.path("state_dir")
            }
        }
    };
}

reading! {
    /// Print all tables as JSON, tombstones included.
    #[argh(subcommand, name = "dump")]
    DumpArgs {
        /// at most as many rows of all tables together
        #[argh(option, arg_name = "NUMBER")]
        limit: Option<usize>,
        /// only rows behind this one: TABLE/ID, as the page before names its last
        #[argh(option, arg_name = "TABLE/ID")]
        cursor: Option<String>,
    }
}

reading! {
    /// Put the tables of a dump in the place of those that are there; ids are kept.
    #[argh(subcommand, name = "load")]
    LoadArgs {
        /// the dump; - for standard input
        #[argh(positional, from_str_fn(native::path))]
        file: PathBuf,
    }
}

reading! {
    /// Give up a damaged or lost mirror.redb: what is left of it is moved aside, and a new one begins with
    /// new ids.
    #[argh(subcommand, name = "begin-anew")]
    BeginAnewArgs {}
}

reading! {
    /// Let the running service delete, once, the rows of a type that its guard withheld.
    #[argh(subcommand, name = "approve")]
    ApproveArgs {
        /// rack, Compute, NVSwitch or PowerShelf
        #[argh(positional, arg_name = "type")]
        kind: String,
        /// how many deletes were withheld, as `afferent status` says
        #[argh(positional)]
        deletes: u32,
    }
}

reading! {
    /// Print an address that opens the page of the running service in a browser, once and for five minutes.
    #[argh(subcommand, name = "login")]
    LoginArgs {}
}

reading! {
    /// Print how reality differs from what is expected.
    #[argh(subcommand, name = "drift")]
    DriftArgs {
        /// only this type: Compute, NVSwitch or PowerShelf
        #[argh(option, arg_name = "TYPE")]
        kind: Option<String>,
        /// only components in this rack: its id, rack_id or name
        #[argh(option, arg_name = "TEXT")]
        rack: Option<String>,
        /// only missing_in_expected, missing_in_actual or mismatch
        #[argh(option, arg_name = "CODE")]
        code: Option<String>,
        /// only from this time on, such as 2026-11-21T10:00:00Z, or so long ago, such as 1h
        #[argh(option, arg_name = "TIME")]
        since: Option<String>,
        /// at most as many rows
        #[argh(option, arg_name = "NUMBER")]
        limit: Option<usize>,
        /// only rows behind the one with this id
        #[argh(option, arg_name = "ID")]
        cursor: Option<Uuid>,
    }
}

reading! {
    /// Print what was done and why, oldest first.
    #[argh(subcommand, name = "audit")]
    AuditArgs {
        /// only this run
        #[argh(option, arg_name = "ID")]
        run: Option<String>,
        /// only this row: its id, address, or what people call it
        #[argh(option, arg_name = "TEXT")]
        row: Option<String>,
        /// only from this time on, such as 2026-11-21T10:00:00Z, or so long ago, such as 1h
        #[argh(option, arg_name = "TIME")]
        since: Option<String>,
        /// only before this time, or what is older than this, such as 1h
        #[argh(option, arg_name = "TIME")]
        until: Option<String>,
        /// only changes made for this type: rack, Compute, NVSwitch, PowerShelf or NVLDomain
        #[argh(option, arg_name = "TYPE")]
        kind: Option<String>,
        /// only changes of this rack (its id, rack_id or name) and of what is in it, comes or leaves
        #[argh(option, arg_name = "TEXT")]
        rack: Option<String>,
        /// only changes of this sort, such as soft_delete
        #[argh(option, arg_name = "CODE")]
        code: Option<String>,
        /// at most as many rows
        #[argh(option, arg_name = "NUMBER")]
        limit: Option<usize>,
        /// only rows behind the one with this number
        #[argh(option, arg_name = "NUMBER")]
        cursor: Option<u64>,
        /// the checkpoint that the rest of the log replays from, instead of the log
        #[argh(switch)]
        checkpoint: bool,
        /// go on and print what is done, until interrupted; JSON is one object a line
        #[argh(switch)]
        follow: bool,
    }
}

reading! {
    /// Pack the audit log and give room back that mirror.redb does not need; the service must be stopped.
    #[argh(subcommand, name = "compact")]
    CompactArgs {}
}

reading! {
    /// Build the indexes again and compare; 1 if anything is wrong.
    #[argh(subcommand, name = "check")]
    CheckArgs {}
}

pub(super) fn dump(args: &DumpArgs) -> Result<u8, Stop> {
    let snapshot = look(&args.state_dir()?)?;
    let (cursor, limit) = (args.cursor.as_deref(), args.limit);
    let page = mirror::dump::page(&snapshot, cursor, limit).map_err(Stop::failed)?;
    let page = page.ok_or_else(|| Stop {
        code: USAGE,
        why: format!("--cursor: there is no row {}", cursor.unwrap_or_default()),
    })?;
    let printed = print_with(|out| {
        if args.json {
            serde_json::to_writer(&mut *out, &page.tables)?;
        } else {
            serde_json::to_writer_pretty(&mut *out, &page.tables)?;
        }
        writeln!(out)
    });
    tell_of_more(limit, page.rows, page.last);
    Ok(printed)
}

pub(super) fn begin_anew(args: &BeginAnewArgs) -> Result<u8, Stop> {
    let state_dir = args.state_dir()?;
    let aside = lost::begin_anew(&state_dir).map_err(Stop::failed)?;
    let aside = aside.map(|aside| aside.display().to_string());
    Ok(print_with(|out| {
        if args.json {
            serde_json::to_writer(&mut *out, &serde_json::json!({"moved_aside": aside}))?;
            return writeln!(out);
        }
        match aside {
            Some(aside) => writeln!(out, "a new mirror.redb is begun; the old one is {aside}"),
            None => writeln!(out, "a new mirror.redb is begun; there was no old one"),
        }
    }))
}

/// What the running service answers to these words; `otherwise` says what to do where none runs.
fn ask_service(state_dir: &Path, words: &str, otherwise: &str) -> Result<Value, Stop> {
    let answer = ask(state_dir, words);
    let answer = answer.map_err(|why| Stop::failed(format!("{why}; {otherwise}")))?;
    match answer["error"].as_str() {
        Some(why) => Err(Stop::failed(why)),
        None => Ok(answer),
    }
}

pub(super) fn login(args: &LoginArgs) -> Result<u8, Stop> {
    let otherwise = "start it with --mirror-listen, or name its directory with --state-dir";
    let answer = ask_service(&args.state_dir()?, "login", otherwise)?;
    let address = answer["address"].as_str().unwrap_or_default();
    if address.is_empty() {
        // A service that does not understand the word answers with its status.
        return Err(Stop::failed(
            "the service that answers has no page; is it a mirror, and of this version?",
        ));
    }
    Ok(print_with(|out| {
        if args.json {
            serde_json::to_writer(&mut *out, &answer)?;
            return writeln!(out);
        }
        writeln!(out, "{}", visible(address))
    }))
}

pub(super) fn approve(args: &ApproveArgs) -> Result<u8, Stop> {
    let deletes = args.deletes;
    let otherwise =
        format!("without one, use `afferent mirror run --once --approve-deletes {deletes}`");
    let words = format!("approve {} {deletes}", args.kind);
    let answer = ask_service(&args.state_dir()?, &words, &otherwise)?;
    Ok(print_with(|out| {
        if args.json {
            serde_json::to_writer(&mut *out, &answer)?;
            return writeln!(out);
        }
        let (deletes, kind) = (args.deletes, &args.kind);
        writeln!(
            out,
            "{deletes} deletes of {kind} are approved; the cycle that begins now carries them out"
        )
    }))
}

pub(super) fn load(args: &LoadArgs) -> Result<u8, Stop> {
    let name = args.file.display();
    let wrong = |why: String| Stop {
        code: USAGE,
        why: format!("{name}: {why}"),
    };
    let text = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(&args.file)
    };
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let document: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let store = open_store(&args.state_dir()?)?;
    let now = clock::wall_now().to_string();
    let source = format!("load {name}");
    let loaded = mirror::dump::load(&store, document, source, now, &mut Uuid::new_v4);
    let loaded = loaded.map_err(|error| match error {
        LoadError::Malformed(why) => wrong(why),
        LoadError::Inventory(error) => Stop::failed(format!("{name}: {error}")),
    })?;
    for row in &loaded.left_out {
        let _ = complain(DONE, &format!("warning: left out {row}"));
    }
    Ok(print_with(|out| {
        if args.json {
            let answer = serde_json::json!({"loaded": loaded.rows, "left_out": loaded.left_out});
            serde_json::to_writer(&mut *out, &answer)?;
            return writeln!(out);
        }
        let mut rows = loaded.rows.iter();
        rows.try_for_each(|(table, rows)| writeln!(out, "{table:<16} {rows}"))
    }))
}

/// Time between two looks of `audit --follow`.
const FOLLOW: Duration = Duration::from_secs(1);

fn time(typed: Option<&String>, flag: &str) -> Result<Option<clock::WallTime>, Stop> {
    read_flag(typed, flag, |text| {
        clock::time_or_age(text, clock::wall_now())
    })
}

/// What was typed behind a flag, read by `read`.
pub(super) fn read_flag<T>(
    typed: Option<&String>,
    flag: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Stop> {
    let read = typed.map(|typed| read(typed)).transpose();
    read.map_err(|why| Stop {
        code: USAGE,
        why: format!("--{flag}: {why}"),
    })
}

/// Says on standard error how to ask for what follows a full page.
pub(super) fn tell_of_more(limit: Option<usize>, rows: usize, last: Option<String>) {
    if let Some(last) = last.filter(|_| limit == Some(rows)) {
        let _ = complain(DONE, &format!("there may be more: --cursor {last}"));
    }
}

pub(super) fn drift(args: &DriftArgs) -> Result<u8, Stop> {
    let filter = DriftFilter {
        kind: read_flag(args.kind.as_ref(), "kind", query::drift_kind)?,
        rack: args.rack.clone(),
        code: read_flag(args.code.as_ref(), "code", query::drift_code)?,
        since: time(args.since.as_ref(), "since")?,
        cursor: args.cursor,
        limit: args.limit,
    };
    let snapshot = look(&args.state_dir()?)?;
    let rows = query::drifts(&snapshot, &filter).map_err(Stop::failed)?;
    let printed = print_with(|out| {
        if args.json {
            let rows: Vec<&Value> = rows.iter().map(|row| &row.columns).collect();
            serde_json::to_writer(&mut *out, &rows)?;
            return writeln!(out);
        }
        rows.iter()
            .try_for_each(|row| writeln!(out, "{}", row.line))
    });
    tell_of_more(
        args.limit,
        rows.len(),
        rows.last().map(|row| row.id.to_string()),
    );
    Ok(printed)
}

pub(super) fn audit(args: &AuditArgs) -> Result<u8, Stop> {
    let mut filter = AuditFilter {
        run: args.run.clone(),
        row: args.row.clone(),
        kind: read_flag(args.kind.as_ref(), "kind", query::audit_kind)?,
        rack: args.rack.clone(),
        code: args.code.clone(),
        since: time(args.since.as_ref(), "since")?,
        until: time(args.until.as_ref(), "until")?,
        cursor: args.cursor,
        limit: args.limit,
    };
    if args.checkpoint {
        return checkpoint(args);
    }
    if args.follow {
        return follow(args, &mut filter);
    }
    let rows = audit_rows(args, &filter)?;
    let printed = print_with(|out| {
        if args.json {
            serde_json::to_writer(&mut *out, &rows)?;
            return writeln!(out);
        }
        rows.iter().try_for_each(|row| writeln!(out, "{row}"))
    });
    tell_of_more(
        args.limit,
        rows.len(),
        rows.last().map(|row| row.number.to_string()),
    );
    Ok(printed)
}

fn checkpoint(args: &AuditArgs) -> Result<u8, Stop> {
    let snapshot = look(&args.state_dir()?)?;
    let found = query::checkpoint(&snapshot).map_err(Stop::failed)?;
    let Some((from, rows)) = found else {
        return Err(Stop::failed(
            "there is no checkpoint: the log replays from its beginning",
        ));
    };
    Ok(print_with(|out| {
        if args.json {
            let answer = serde_json::json!({"replays_from": from, "rows": rows});
            serde_json::to_writer(&mut *out, &answer)?;
            return writeln!(out);
        }
        let mut rows = rows.iter();
        rows.try_for_each(|row| writeln!(out, "{} {}", row["table"], row["columns"]))
    }))
}

pub(super) fn compact(args: &CompactArgs) -> Result<u8, Stop> {
    let state_dir = args.state_dir()?;
    must_exist(&state_dir)?;
    let store = open_store(&state_dir)?;
    let [before, after] = mirror::compact(&store).map_err(Stop::failed)?;
    Ok(print_with(|out| {
        if args.json {
            let answer = serde_json::json!({"bytes_before": before, "bytes_after": after});
            serde_json::to_writer(&mut *out, &answer)?;
            return writeln!(out);
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        writeln!(
            out,
            "mirror.redb had {} MiB and has {} MiB",
            mib(before),
            mib(after)
        )
    }))
}

fn audit_rows(args: &AuditArgs, filter: &AuditFilter) -> Result<Vec<AuditView>, Stop> {
    let snapshot = look(&args.state_dir()?)?;
    query::audit(&snapshot, filter).map_err(Stop::failed)
}

/// Prints what is there and then what comes, until nobody reads any more.
fn follow(args: &AuditArgs, filter: &mut AuditFilter) -> Result<u8, Stop> {
    let mut left = filter.limit;
    while left != Some(0) {
        let rows = audit_rows(args, filter)?;
        for row in &rows {
            let is_read = print_while_read(|out| {
                if args.json {
                    serde_json::to_writer(&mut *out, row)?;
                    return writeln!(out);
                }
                writeln!(out, "{row}")
            })?;
            if !is_read {
                return Ok(DONE);
            }
            filter.cursor = Some(row.number);
        }
        left = left.map(|left| left.saturating_sub(rows.len()));
        filter.limit = left;
        std::thread::sleep(FOLLOW);
    }
    Ok(DONE)
}

pub(super) fn check(args: &CheckArgs) -> Result<u8, Stop> {
    let snapshot = look(&args.state_dir()?)?;
    let problems = mirror::check(&snapshot).map_err(Stop::failed)?;
    let printed = print_with(|out| {
        if args.json {
            let answer = serde_json::json!({"ok": problems.is_empty(), "problems": problems});
            serde_json::to_writer(&mut *out, &answer)?;
            return writeln!(out);
        }
        if problems.is_empty() {
            return writeln!(out, "indexes and rows agree");
        }
        problems
            .iter()
            .try_for_each(|problem| writeln!(out, "{problem}"))
    });
    Ok(if problems.is_empty() { printed } else { FAILED })
}
