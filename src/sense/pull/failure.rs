//! Why an exchange with a guest failed: each way has a name, a counter and a next step.

use super::schedule::{Ask, PullOutcome};
use crate::transport::{DialAddress, ReadError, explain};
use crate::visible::Foreign;
use std::io;

/// Why there is neither a report nor the answer that nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody answers at this address.
    #[error("unreachable: {0}")]
    Unreachable(Foreign),
    /// No connection came about in time.
    #[error("no connection in time")]
    DialTimeout,
    /// Its certificate is not the right one, or it does not speak TLS.
    #[error("no TLS: {0}")]
    Handshake(Foreign),
    /// This machine, or the guest's listener, has no room for a connection right now.
    #[error("no room for a connection: {0}")]
    NoRoom(String),
    /// Connected, but no answer came in time.
    #[error("no answer in time")]
    NoAnswer,
    /// Closed before the first byte of an answer.
    #[error("closed without an answer")]
    ClosedEarly,
    /// Closed in the middle of an answer.
    #[error("closed in the middle of its answer")]
    BrokenOff,
    /// Stopped sending in the middle of an answer.
    #[error("stalled in the middle of its answer")]
    Stalled,
    /// This sensor has no memory, or no permit, left for its answer.
    #[error("this sensor has no room for its answer right now")]
    OutOfRoom,
    /// A fault of this program, in handling its answer.
    #[error("a fault of afferent in handling its answer: {0}")]
    Panicked(Foreign),
    /// Announced more than is allowed.
    #[error("its answer is over the limit")]
    TooLarge,
    /// Its answer does not decode.
    #[error("its answer cannot be understood")]
    Malformed,
    /// It has too many connections.
    #[error("busy")]
    Busy,
    /// It has not finished its first scan.
    #[error("not ready: its first scan is not finished")]
    NotReady,
    /// It gives no report before it has a mapping from repositories to CPEs.
    #[error("gives no report before it has a mapping of repositories to CPEs: see --repo-cpe")]
    MappingRequired,
    /// Its package database is new and holds no package yet.
    #[error("its RPM database is new and holds no package yet")]
    EmptyDatabase {
        /// Whether it can hold a wait for the first one.
        waits: bool,
    },
    /// It does not implement the method.
    #[error("does not know this method")]
    UnknownMethod,
    /// It reported an error of its own.
    #[error("its agent says: {0}")]
    AgentError(Foreign),
    /// A report without a package.
    #[error("its report lists no packages")]
    EmptyReport,
    /// Its scan failed.
    #[error("its scan failed: {0}")]
    ScanFailed(Foreign),
    /// It answered "unchanged" of something else than is known.
    #[error("says unchanged, but is not what is known")]
    FalseUnchanged,
    /// Another machine answers than the roster allows.
    #[error("another machine answers here: {0}")]
    WrongGuest(String),
    /// Its report could not be made durable.
    #[error("its report was not kept: {0}")]
    NotStored(String),
}

impl Failure {
    /// What an error while dialing this address means.
    pub fn from_dial(address: &DialAddress, error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            // EMFILE, ENFILE, ENOBUFS, ENOMEM
            (io::ErrorKind::WouldBlock, _) | (_, Some(24 | 23 | 105 | 12)) => {
                Self::NoRoom(error.to_string())
            }
            _ => Self::Unreachable(explain(address, error).as_str().into()),
        }
    }

    /// What an error while reading the beginning of an answer means.
    pub fn from_read(error: &ReadError) -> Self {
        match error {
            ReadError::Frame(_) => Self::TooLarge,
            ReadError::Truncated => Self::BrokenOff,
            ReadError::Closed | ReadError::Io(_) => Self::ClosedEarly,
        }
    }

    /// Whether the guest, or somebody on the way to it, hangs.
    pub fn is_hang(&self) -> bool {
        matches!(self, Self::NoAnswer | Self::Stalled)
    }

    /// Every word of [`Failure::label`].
    pub const LABELS: [&'static str; 22] = [
        "unreachable",
        "dial_timeout",
        "handshake",
        "no_room",
        "no_answer",
        "closed_early",
        "broken_off",
        "stalled",
        "out_of_room",
        "panicked",
        "too_large",
        "malformed",
        "busy",
        "not_ready",
        "mapping_required",
        "unknown_method",
        "agent_error",
        "empty_report",
        "scan_failed",
        "false_unchanged",
        "wrong_guest",
        "not_kept",
    ];

    /// A word for metrics and `status`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::DialTimeout => "dial_timeout",
            Self::Handshake(_) => "handshake",
            Self::NoRoom(_) => "no_room",
            Self::NoAnswer => "no_answer",
            Self::ClosedEarly => "closed_early",
            Self::BrokenOff => "broken_off",
            Self::Stalled => "stalled",
            Self::OutOfRoom => "out_of_room",
            Self::Panicked(_) => "panicked",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Busy => "busy",
            Self::NotReady | Self::EmptyDatabase { .. } => "not_ready",
            Self::MappingRequired => "mapping_required",
            Self::UnknownMethod => "unknown_method",
            Self::AgentError(_) => "agent_error",
            Self::EmptyReport => "empty_report",
            Self::ScanFailed(_) => "scan_failed",
            Self::FalseUnchanged => "false_unchanged",
            Self::WrongGuest(_) => "wrong_guest",
            Self::NotStored(_) => "not_kept",
        }
    }

    /// What happens next, after the guest was asked for this.
    pub fn next_step(&self, asked: Ask) -> PullOutcome {
        match (self, asked) {
            (Self::UnknownMethod, Ask::Wait(_)) => PullOutcome::NoWaits,
            (Self::FalseUnchanged, Ask::Get | Ask::Wait(_)) => PullOutcome::Contradictory,
            (Self::EmptyDatabase { waits }, _) => PullOutcome::NoPackages {
                waits: *waits,
                hasty: false,
            },
            (Self::Busy | Self::NotReady | Self::NoRoom(_) | Self::OutOfRoom, _) => {
                PullOutcome::Busy
            }
            (Self::NotStored(_), _) => PullOutcome::NotStored,
            _ => PullOutcome::Failed,
        }
    }
}
