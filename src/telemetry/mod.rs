//! What the process says about itself: its log, and (for the services) status and metrics.
//!
//! The log goes to standard error. Under systemd each line carries its priority the way
//! sd-daemon(3) asks for and no time, because the journal has both; `AFFERENT_LOG_FORMAT=json`
//! writes one JSON object a line instead. `AFFERENT_LOG` sets the level (`warn`, `debug`,
//! `afferent::sense=debug`). Each event is one line, whatever is in it, see [`crate::visible`].

pub mod bundle;
mod connections;
pub mod control;
pub mod metrics;
pub mod request;
pub mod scrape;
pub mod support;
pub mod systemd;
pub mod watchdog;

use crate::visible::visible;
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging for the rest of the process. A second call does nothing.
pub fn start_log() {
    // Not `EnvFilter`: its regular expressions are a tenth of the binary.
    let wanted = std::env::var("AFFERENT_LOG").unwrap_or_default();
    let format = std::env::var("AFFERENT_LOG_FORMAT").unwrap_or_default();
    let read = read_filter(&wanted);
    let is_understood = read.is_some();
    let filter = read.unwrap_or_else(default_filter);
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(Level::TRACE)
        // It would be said on the standard error that cannot be written to, and end the program.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_target(false);
    // In one line, and at its priority: a peer's text may be in the message of a panic.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let said = payload.downcast_ref::<&str>().copied();
        let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let said = said.unwrap_or("no message");
        tracing::error!(
            at = at.as_deref().unwrap_or("?"),
            said,
            "a fault of afferent"
        );
    }));
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let _ = if format == "json" {
        let log = log.json().flatten_event(true);
        log.map_event_format(OneLine)
            .finish()
            .with(filter)
            .try_init()
    } else if in_journal {
        let format = Format::default()
            .without_time()
            .with_level(false)
            .with_target(false);
        let log = log.event_format(OneLine(Journal(format)));
        log.finish().with(filter).try_init()
    } else {
        log.map_event_format(OneLine)
            .finish()
            .with(filter)
            .try_init()
    };
    if !is_understood {
        tracing::warn!(
            "AFFERENT_LOG: {wanted:?} is none of error, warn, info, debug, trace and off, nor a part of the program \
             as in warn,afferent::sense=debug: it is info"
        );
    }
    if !matches!(&*format, "" | "json") {
        tracing::warn!("AFFERENT_LOG_FORMAT: {format:?} is not json: lines are text");
    }
}

fn default_filter() -> Targets {
    Targets::new().with_default(Level::INFO)
}

/// What is logged where AFFERENT_LOG is this; `None`: it is not understood. A misspelled level would be the name of a
/// part of some program, so that nothing was logged at all.
fn read_filter(wanted: &str) -> Option<Targets> {
    let mut parts = wanted.split(',').map(str::trim);
    let is_known = |part: &str| {
        part.contains('=') || part.starts_with("afferent") || part.parse::<LevelFilter>().is_ok()
    };
    match wanted.trim() {
        "" => Some(default_filter()),
        wanted if parts.all(is_known) => wanted.parse().ok(),
        _ => None,
    }
}

/// Reads the configuration again by `reload`, and tells systemd when that begins and ends.
pub fn reload(reload: impl FnOnce()) {
    let began = sd_notify::NotifyState::monotonic_usec_now();
    if let Ok(began) = began {
        systemd::tell(&[sd_notify::NotifyState::Reloading, began]);
    }
    reload();
    systemd::tell(&[sd_notify::NotifyState::Ready]);
}

/// Events as the inner format writes them, with whatever is not seen as escapes: a peer whose text is in
/// one begins no line of its own.
struct OneLine<F>(F);

impl<S, N, F> FormatEvent<S, N> for OneLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        writeln!(writer, "{}", visible(line))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    /// The loss: a service that logs nothing because of a typing error, or of a variable that is there and empty.
    #[test]
    fn what_is_no_level_is_refused_and_nothing_means_the_default() {
        let level = |wanted: &str| read_filter(wanted).and_then(|read| read.default_level());
        for (wanted, is) in [
            ("", LevelFilter::INFO),
            (" ", LevelFilter::INFO),
            ("warn", LevelFilter::WARN),
            ("DEBUG", LevelFilter::DEBUG),
            ("off", LevelFilter::OFF),
            ("warn,afferent::sense=debug", LevelFilter::WARN),
        ] {
            assert_eq!(level(wanted), Some(is), "{wanted:?}");
        }
        assert!(read_filter("afferent::sense").is_some() && read_filter("h2=trace").is_some());
        for wanted in ["debugg", "warn,debugg", "all", "a=b=c", "afferent=loud"] {
            assert!(read_filter(wanted).is_none(), "{wanted:?}");
        }
    }

    /// Loss prevented: a guest that writes lines of its own into the host's journal, at a priority of
    /// its choice.
    #[test]
    fn an_event_is_one_line_whatever_a_peer_said() {
        let evil = "x\n<0>forged\u{1b}[31m\r\u{202e}\u{2028}";
        let shown = "x\\n<0>forged\\x1b[31m\\x0d\\u202e\\u2028";
        let journal = Format::default().without_time().with_level(false);
        let json = logged(evil, |out| {
            let log = builder_of(out).json().flatten_event(true);
            Box::new(log.map_event_format(OneLine).finish())
        });
        let text = logged(evil, |out| {
            Box::new(builder_of(out).map_event_format(OneLine).finish())
        });
        let format = OneLine(Journal(journal.with_target(false)));
        let journal = logged(evil, |out| {
            Box::new(builder_of(out).event_format(format).finish())
        });
        for line in [&text, &journal] {
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(line.contains(shown), "{line}");
        }
        assert!(journal.starts_with("<4>"), "{journal}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["said"], evil);
    }

    fn builder_of(
        out: Output,
    ) -> tracing_subscriber::fmt::SubscriberBuilder<
        tracing_subscriber::fmt::format::DefaultFields,
        Format<Full>,
        tracing_subscriber::filter::LevelFilter,
        Output,
    > {
        tracing_subscriber::fmt().with_ansi(false).with_writer(out)
    }

    fn logged(said: &str, log: impl FnOnce(Output) -> Box<dyn Subscriber + Send + Sync>) -> String {
        let out = Output::default();
        tracing::subscriber::with_default(log(out.clone()), || tracing::warn!(%said, "not pulled"));
        let bytes = std::mem::take(&mut *out.0.lock().unwrap());
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl tracing_subscriber::fmt::MakeWriter<'_> for Output {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }
}
