//! `afferent mirror`: flags as typed.
//!
//! Exit codes: 0 converged, 1 a type failed or was pulled in part only, 2 usage or configuration, 3
//! deletes were withheld.

mod args;
mod beside;
mod read;
mod settings;
mod summary;

use super::options::ConfigError;
use super::{DONE, FAILED, USAGE, complain, print_with, write_lines};
use crate::blocking::Blocking;
use crate::mirror::diagnostics::{Diagnostic, Summary};
use crate::mirror::planfile::{PlanFile, PlanFilter, PlanSnapshot, PlanView, preview, show};
use crate::mirror::run::{self, Mirror};
use crate::mirror::service;
use crate::mirror::{Store, lost};
use crate::telemetry::start_log;
use crate::visible::visible;
use argh::FromArgs;
pub(super) use args::SETTINGS;
use args::{ApplyArgs, ExplainArgs, PlanArgs, RunArgs};
use settings::Config;
use std::path::Path;
use summary::{exit_code, print_diagnostics, print_summary};

/// Keep a local copy of Core's expected inventory, and say how reality differs from it.
///
/// Example: afferent mirror run --once --core file:inventory.json --state-dir /tmp/mirror
#[derive(FromArgs)]
#[argh(subcommand, name = "mirror")]
pub(super) struct MirrorArgs {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Run(Box<RunArgs>),
    Plan(Box<PlanArgs>),
    Apply(Box<ApplyArgs>),
    Explain(Box<ExplainArgs>),
    Dump(read::DumpArgs),
    Load(read::LoadArgs),
    Drift(read::DriftArgs),
    Audit(read::AuditArgs),
    Check(read::CheckArgs),
    Compact(read::CompactArgs),
    BeginAnew(read::BeginAnewArgs),
    Approve(read::ApproveArgs),
    Login(read::LoginArgs),
}

/// Whether settings make a configuration.
pub(super) fn check(settings: &super::options::Settings) -> Result<(), ConfigError> {
    Config::of(settings, None).map(drop)
}

pub(super) fn run(args: MirrorArgs) -> u8 {
    start_log();
    let done = match args.command {
        Command::Run(args) => run_command(&args),
        Command::Plan(args) => plan_command(&args),
        Command::Apply(args) => args
            .configuration()
            .map_err(Stop::from)
            .and_then(|config| apply(&config, &args.file, args.json)),
        Command::Explain(args) => args
            .configuration()
            .map_err(Stop::from)
            .and_then(|config| explain(&config, &args)),
        Command::Dump(args) => read::dump(&args),
        Command::Load(args) => read::load(&args),
        Command::Drift(args) => read::drift(&args),
        Command::Audit(args) => read::audit(&args),
        Command::Check(args) => read::check(&args),
        Command::Compact(args) => read::compact(&args),
        Command::BeginAnew(args) => read::begin_anew(&args),
        Command::Approve(args) => read::approve(&args),
        Command::Login(args) => read::login(&args),
    };
    done.unwrap_or_else(|stop| complain(stop.code, &stop.why))
}

/// Why a command ends early, and with which code.
struct Stop {
    code: u8,
    why: String,
}

impl Stop {
    #[allow(
        clippy::needless_pass_by_value,
        reason = "it is given to map_err as it is"
    )]
    fn failed(error: impl ToString) -> Self {
        Self {
            code: FAILED,
            why: error.to_string(),
        }
    }
}

/// Prints, unless nobody reads any more: then false.
fn print_while_read(
    write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> Result<bool, Stop> {
    match write_lines(write) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Stop::failed(format!("cannot write the output: {error}"))),
    }
}

/// Code 3 has its own meaning here, so whatever is wrong with settings is 2.
impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self {
            code: USAGE,
            why: error.to_string(),
        }
    }
}

fn run_command(args: &RunArgs) -> Result<u8, Stop> {
    let config = args.configuration()?;
    if let Some(file) = &args.apply {
        return apply(&config, file, args.json);
    }
    if args.plan || args.plan_out.is_some() {
        let all = PlanFilter::default();
        return plan(&config, args.plan_out.as_deref(), &all, args.json);
    }
    let mut host = match args.once {
        true => None,
        false => Some(service::ServiceHost::start().map_err(Stop::failed)?),
    };
    let interval = config.interval;
    let core = config.core()?;
    let store = match (config.open_store(), &mut host) {
        // The service does not end: an operator has to see that, and to decide.
        (Err(error), Some(host)) if error.is_lost() => {
            let service = lost::Waiting {
                state_dir: config.state_dir(),
                aside: config.damaged(),
                core: &core.source(),
                metrics: config.metrics,
            };
            let waited = lost::wait(host, &service, &error);
            match waited.map_err(Stop::failed)? {
                Some(store) => store,
                None => return Ok(DONE),
            }
        }
        (opened, _) => opened.map_err(|error| settings::not_opened(&error))?,
    };
    let mut mirror = Mirror {
        audit: config.audit,
        ..Mirror::new(store, core, config.policy, settings::gate(&config.policy))
    };
    if let Some(host) = host {
        let reread = || {
            let said = |stop: Stop| stop.why;
            let config = args.configuration().map_err(Stop::from).map_err(said)?;
            Ok(service::Reloaded {
                interval: config.interval,
                core: config.core().map_err(said)?,
                policy: config.policy,
                gate: settings::gate(&config.policy),
                audit: config.audit,
                state_dir: config.state_dir().to_owned(),
                metrics: config.metrics,
                listen: config.listen.clone(),
                damaged: config.damaged(),
            })
        };
        let options = service::ServiceOptions {
            interval,
            state_dir: config.state_dir(),
            metrics: config.metrics,
            listen: config.listen.clone(),
            damaged: config.damaged(),
            blocking: Blocking::Threads,
            reread: &reread,
        };
        return service::run(host, mirror, options)
            .map(|()| DONE)
            .map_err(Stop::failed);
    }
    let summary = mirror.once();
    Ok(print_summary(&summary, args.json))
}

fn plan_command(args: &PlanArgs) -> Result<u8, Stop> {
    let filter = PlanFilter {
        kind: read::read_flag(args.kind.as_ref(), "kind", crate::mirror::query::audit_kind)?,
        code: args.code.clone(),
        limit: args.limit,
        cursor: args.cursor,
    };
    let out = args.plan_out.as_deref();
    plan(&args.configuration()?, out, &filter, args.json)
}

fn plan(config: &Config, out: Option<&Path>, filter: &PlanFilter, json: bool) -> Result<u8, Stop> {
    let tables = beside::look(config.state_dir())?;
    let store = Store::copy_of(&tables).map_err(Stop::failed)?;
    let mut core = config.core()?;
    let snapshot = PlanSnapshot::take(core.as_mut(), &config.policy);
    let (planned, digest) =
        preview(&store, snapshot, &config.policy, false).map_err(Stop::failed)?;
    let view = PlanView::new(&planned, digest);
    if let Some(path) = out {
        let file = PlanFile::new(&view, core.source(), &config.policy).map_err(Stop::failed)?;
        let text = serde_json::to_string_pretty(&file).map_err(Stop::failed)?;
        std::fs::write(path, text + "\n")
            .map_err(|error| Stop::failed(format!("{}: {error}", path.display())))?;
    }
    let (view, last) = view.page(filter);
    let printed = print_with(|out| {
        if json {
            serde_json::to_writer_pretty(&mut *out, &view)?;
            return writeln!(out);
        }
        out.write_all(show(&view).as_bytes())
    });
    let last = last.map(|number| number.to_string());
    read::tell_of_more(filter.limit, view.changes.len(), last);
    if !json {
        print_diagnostics(&view.warnings, &view.errors);
    }
    Ok(if printed == DONE {
        exit_code(&planned.summary)
    } else {
        printed
    })
}

fn apply(config: &Config, file: &Path, json: bool) -> Result<u8, Stop> {
    let wrong = |why: String| Stop {
        code: USAGE,
        why: format!("{}: {why}", file.display()),
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let saved = PlanFile::read(&text).map_err(wrong)?;
    let store = config
        .open_store()
        .map_err(|error| settings::not_opened(&error))?;
    let mut core = config.core()?;
    let snapshot = PlanSnapshot::take(core.as_mut(), &saved.policy);
    let tables = store.snapshot().map_err(Stop::failed)?;
    let generation = crate::mirror::generation(&tables).map_err(Stop::failed)?;
    drop(tables);
    if let Some(why) = saved.stale(&snapshot, generation) {
        let mut summary = Summary::new(String::new());
        summary.errors.push(Diagnostic::general("plan_stale", why));
        return Ok(print_summary(&summary, json));
    }
    let mut policy = saved.policy;
    // What was looked at is the plan: now its deletes may be approved, too.
    policy.approve_deletes = config.policy.approve_deletes.or(policy.approve_deletes);
    let mut mirror = Mirror {
        audit: config.audit,
        ..Mirror::new(store, Box::new(snapshot), policy, run::Gate::Unset)
    };
    let summary = mirror.once();
    Ok(print_summary(&summary, json))
}

fn explain(config: &Config, args: &ExplainArgs) -> Result<u8, Stop> {
    let key = args.key.as_str();
    let tables = beside::look(config.state_dir())?;
    let store = Store::copy_of(&tables).map_err(Stop::failed)?;
    let mut core = config.core()?;
    let snapshot = PlanSnapshot::take(core.as_mut(), &config.policy);
    let (planned, _) = preview(&store, snapshot, &config.policy, true).map_err(Stop::failed)?;
    let mut lines = crate::mirror::explain::explain(&planned, key);
    if lines.is_empty() {
        lines = crate::mirror::explain::untouched(&tables, key).map_err(Stop::failed)?;
    }
    if lines.is_empty() {
        return Err(Stop::failed(format!(
            "{key}: neither Core nor the tables know it"
        )));
    }
    let begin = args.cursor.unwrap_or(0).min(lines.len());
    let end = lines
        .len()
        .min(begin.saturating_add(args.limit.unwrap_or(usize::MAX)));
    let page = lines.get(begin..end).unwrap_or_default();
    let printed = print_with(|out| {
        if args.json {
            serde_json::to_writer_pretty(
                &mut *out,
                &serde_json::json!({"key": key, "lines": page}),
            )?;
            return writeln!(out);
        }
        page.iter()
            .try_for_each(|line| writeln!(out, "{}", visible(line)))
    });
    read::tell_of_more(args.limit, page.len(), Some(end.to_string()));
    Ok(printed)
}
