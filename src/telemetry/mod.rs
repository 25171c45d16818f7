//! What the process says about itself: its log, and (for the services) status and metrics.
//!
//! The log goes to standard error. Under systemd each line carries its priority the way
//! sd-daemon(3) asks for and no time, because the journal has both; `AFFERENT_LOG_FORMAT=json`
//! writes one JSON object a line instead. `AFFERENT_LOG` sets the level (`warn`, `debug`,
//! `afferent::sense=debug`).

mod connections;
pub mod control;
pub mod metrics;
pub mod scrape;

use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging for the rest of the process. A second call does nothing.
pub fn start_log() {
    // Not `EnvFilter`: its regular expressions are a tenth of the binary.
    let wanted = std::env::var("AFFERENT_LOG").ok();
    let filter = wanted
        .and_then(|wanted| wanted.parse::<Targets>().ok())
        .unwrap_or_else(|| Targets::new().with_default(Level::INFO));
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(Level::TRACE)
        // It would be said on the standard error that cannot be written to, and end the program.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_target(false);
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let _ = if std::env::var("AFFERENT_LOG_FORMAT").is_ok_and(|format| format == "json") {
        let log = log.json().flatten_event(true).finish();
        log.with(filter).try_init()
    } else if in_journal {
        let format = Format::default()
            .without_time()
            .with_level(false)
            .with_target(false);
        let log = log.event_format(Journal(format)).finish();
        log.with(filter).try_init()
    } else {
        log.finish().with(filter).try_init()
    };
}

/// Lines for the journal: `<6>message field=value`.
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
