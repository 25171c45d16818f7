//! What came of a pull in each of three layers: every pull is counted in exactly one outcome of each, so that a
//! fleet whose network is broken is told from one whose agents are, and from one whose reports nobody wants.
//!
//! ```text
//! transport   dial, TLS, deadlines, closing        answered, or why there was no whole answer
//! protocol    what the answer says                 report, unchanged, or an error; `none` without an answer
//! pipeline    where the guest's report is then     stored here, delivered, refused, or not taken
//! ```
//!
//! A pull that the sensor gives up itself, because its guest left or is wanted in full, is counted nowhere.

use super::failure::Failure;
use crate::telemetry::metrics::{Counters, Page};

/// Outcomes of a layer, and their words.
macro_rules! outcomes {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $outcome:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $outcome,)+
        }

        impl $name {
            /// Every word of this layer.
            pub const LABELS: &'static [&'static str] = &[$($word),+];

            /// The word of an outcome.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$outcome => $word,)+
                }
            }
        }
    };
}

outcomes! {
    /// How the bytes went.
    Transport {
        /// A whole answer came, or more of one than is read.
        Answered = "answered",
        /// Nobody answers at this address.
        Unreachable = "unreachable",
        /// No connection came about in time.
        DialTimeout = "dial_timeout",
        /// TLS failed.
        Tls = "tls",
        /// This machine or the guest's listener had no room.
        NoRoom = "no_room",
        /// No answer came in time.
        NoAnswer = "no_answer",
        /// Closed before an answer.
        ClosedEarly = "closed_early",
        /// Closed in the middle of an answer.
        BrokenOff = "broken_off",
        /// Stopped in the middle of an answer.
        Stalled = "stalled",
    }
}

outcomes! {
    /// What the answer says.
    Protocol {
        /// Here is a report.
        Report = "report",
        /// The known report is the newest.
        Unchanged = "unchanged",
        /// Come back later.
        Busy = "busy",
        /// There is no report yet.
        NotReady = "not_ready",
        /// There is no report before there is a mapping.
        MappingRequired = "mapping_required",
        /// It does not decode.
        Malformed = "malformed",
        /// It is over the limit.
        TooLarge = "too_large",
        /// The method is not known.
        UnknownMethod = "unknown_method",
        /// Another error.
        AgentError = "agent_error",
        /// It comes from another machine than the roster or its certificate allows.
        WrongGuest = "wrong_guest",
        /// A fault of this program in handling it.
        Fault = "fault",
        /// There was no answer.
        None = "none",
    }
}

outcomes! {
    /// Where the report of the guest is after the pull.
    Pipeline {
        /// On disk here, on its way to Central.
        Stored = "stored",
        /// Central has it.
        Delivered = "delivered",
        /// Central refused it for good.
        Refused = "refused",
        /// This sensor does not take it: it is no report, or contradicts what is known.
        Rejected = "rejected",
        /// It could not be made durable.
        NotStored = "not_stored",
        /// No report came, and none is known to be the newest.
        None = "none",
    }
}

/// What came of a pull in each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerOutcomes {
    /// How the bytes went.
    pub transport: Transport,
    /// What the answer says.
    pub protocol: Protocol,
    /// Where the report is.
    pub pipeline: Pipeline,
}

impl LayerOutcomes {
    /// Of a pull that was answered with a report or with "unchanged".
    pub fn answered(protocol: Protocol, pipeline: Pipeline) -> Self {
        Self {
            transport: Transport::Answered,
            protocol,
            pipeline,
        }
    }
}

impl From<&Failure> for LayerOutcomes {
    fn from(failure: &Failure) -> Self {
        let lost = |transport| Self {
            transport,
            protocol: Protocol::None,
            pipeline: Pipeline::None,
        };
        let said = |protocol| Self::answered(protocol, Pipeline::None);
        match failure {
            Failure::Unreachable(_) => lost(Transport::Unreachable),
            Failure::DialTimeout => lost(Transport::DialTimeout),
            Failure::Handshake(_) => lost(Transport::Tls),
            Failure::NoRoom(_) | Failure::OutOfRoom => lost(Transport::NoRoom),
            Failure::NoAnswer => lost(Transport::NoAnswer),
            Failure::ClosedEarly => lost(Transport::ClosedEarly),
            Failure::BrokenOff => lost(Transport::BrokenOff),
            Failure::Stalled => lost(Transport::Stalled),
            Failure::Panicked(_) => said(Protocol::Fault),
            Failure::TooLarge => said(Protocol::TooLarge),
            Failure::Malformed => said(Protocol::Malformed),
            Failure::Busy => said(Protocol::Busy),
            Failure::NotReady | Failure::EmptyDatabase { .. } => said(Protocol::NotReady),
            Failure::MappingRequired => said(Protocol::MappingRequired),
            Failure::UnknownMethod => said(Protocol::UnknownMethod),
            Failure::AgentError(_) => said(Protocol::AgentError),
            Failure::WrongGuest(_) => said(Protocol::WrongGuest),
            Failure::EmptyReport | Failure::ScanFailed(_) => {
                Self::answered(Protocol::Report, Pipeline::Rejected)
            }
            Failure::FalseUnchanged => Self::answered(Protocol::Unchanged, Pipeline::Rejected),
            Failure::NotStored(_) => Self::answered(Protocol::Report, Pipeline::NotStored),
        }
    }
}

/// Pulls by what came of them in each layer.
#[derive(Debug)]
pub struct LayerCounters {
    transport: Counters,
    protocol: Counters,
    pipeline: Counters,
}

impl Default for LayerCounters {
    fn default() -> Self {
        Self {
            transport: Counters::new(Transport::LABELS),
            protocol: Counters::new(Protocol::LABELS),
            pipeline: Counters::new(Pipeline::LABELS),
        }
    }
}

impl LayerCounters {
    /// Counts a pull.
    pub fn count(&self, outcomes: LayerOutcomes) {
        self.transport.inc(outcomes.transport.label());
        self.protocol.inc(outcomes.protocol.label());
        self.pipeline.inc(outcomes.pipeline.label());
        debug_assert!(self.agree(), "a pull is missing in a layer");
    }

    fn agree(&self) -> bool {
        let [a, b, c] = [&self.transport, &self.protocol, &self.pipeline].map(Counters::sum);
        a == b && b == c
    }

    /// Writes what is counted.
    pub fn write(&self, page: &mut Page) {
        page.counters(
            "afferent_sense_pull_transport_total",
            "Pulls by how their bytes went.",
            "outcome",
            &self.transport,
        );
        page.counters(
            "afferent_sense_pull_protocol_total",
            "Pulls by what their answers say.",
            "outcome",
            &self.protocol,
        );
        page.counters(
            "afferent_sense_pull_pipeline_total",
            "Pulls by where the guest's report was after them.",
            "outcome",
            &self.pipeline,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One of each kind.
    fn failures() -> Vec<Failure> {
        let text = || "x".into();
        vec![
            Failure::Unreachable(text()),
            Failure::DialTimeout,
            Failure::Handshake(text()),
            Failure::NoRoom("x".into()),
            Failure::NoAnswer,
            Failure::ClosedEarly,
            Failure::BrokenOff,
            Failure::Stalled,
            Failure::OutOfRoom,
            Failure::Panicked(text()),
            Failure::TooLarge,
            Failure::Malformed,
            Failure::Busy,
            Failure::NotReady,
            Failure::EmptyDatabase { waits: true },
            Failure::MappingRequired,
            Failure::UnknownMethod,
            Failure::AgentError(text()),
            Failure::EmptyReport,
            Failure::ScanFailed(text()),
            Failure::FalseUnchanged,
            Failure::WrongGuest("x".into()),
            Failure::NotStored("x".into()),
        ]
    }

    #[test]
    fn every_failure_is_in_the_list() {
        let mut labels: Vec<&str> = failures().iter().map(Failure::label).collect();
        labels.dedup();
        assert_eq!(labels, Failure::LABELS);
    }

    proptest! {
        /// Loss prevented: a dashboard on which nine of ten failures are in no layer.
        #[test]
        fn every_pull_is_in_exactly_one_outcome_of_each_layer(
            ended in proptest::collection::vec(proptest::option::of(0usize..23), 0..100)
        ) {
            let counters = LayerCounters::default();
            let pulls = ended.len() as u64;
            for failure in ended {
                counters.count(match failure {
                    Some(n) => LayerOutcomes::from(&failures()[n]),
                    None => LayerOutcomes::answered(Protocol::Report, Pipeline::Stored),
                });
            }
            for (layer, labels) in [
                (&counters.transport, Transport::LABELS),
                (&counters.protocol, Protocol::LABELS),
                (&counters.pipeline, Pipeline::LABELS),
            ] {
                prop_assert_eq!(layer.sum(), pulls);
                // No outcome without a word that is shown from the start.
                prop_assert_eq!(layer.values(), labels.len());
            }
        }
    }

    #[test]
    fn what_was_not_answered_has_no_outcome_in_the_layers_above() {
        for failure in failures() {
            let outcomes = LayerOutcomes::from(&failure);
            let is_answered = outcomes.transport == Transport::Answered;
            assert_eq!(
                is_answered,
                outcomes.protocol != Protocol::None,
                "{failure}"
            );
            if !is_answered {
                assert_eq!(outcomes.pipeline, Pipeline::None, "{failure}");
            }
        }
    }
}
