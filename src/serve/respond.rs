//! What an agent answers: a request and the published report in, a response out.
//!
//! "Unchanged" is said only when it is certainly true: the token or digest that this agent issued came
//! back, else the same generation of the same epoch (or of an epoch the peer does not know of). A digest
//! counts only from a peer that sends back what it was sent: sensors of version 0.1 computed their own,
//! in a form that is not this agent's.
//!
//! A peer that knows a report which this agent cannot have made proves that the agent was put back to
//! an earlier state: see [`Verdict::Impossible`].

use super::mapping::MappingState;
use super::refusal::Refusal;
use super::report_table::{ReportRow, StoredReport};
use super::scanned::Scan;
use crate::clock::WallTime;
use crate::report::{Digest, Facts, GuestId, Report, ReportKey, Token, Trigger, facts};
use crate::wire::message::{
    self as wire, ErrorCode, REASON, ResponseMeta, VmServiceResponse, response,
};
use crate::wire::meta;
use crate::wire::request::{Knowledge, Method, Request};
use crate::wire::{MAX_RESPONSE, report_to_wire};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// Longest a request is held, whatever the peer asks for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Characters of an error that travel as a fact: a sensor keeps no longer one.
const LONGEST_ERROR: usize = 250;

/// A report as it is served: encoded once, sent many times.
#[derive(Clone, Debug)]
pub struct Published {
    row: ReportRow,
    /// Facts that go into the meta of every answer, but for those of the last scan.
    facts: Facts,
    last_scan: Scan,
    packages: usize,
    /// Who brings the mapping; the hash is that of the last scan.
    mapping: MappingState,
    /// Field 2 of the response, tag and length included.
    payload: Arc<[u8]>,
}

/// What the peer has already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    generation: u32,
    epoch: u32,
    /// Only of a peer that sends back what it was sent.
    digest: Option<Digest>,
    /// What is in the token; `None` also for one that this agent did not issue.
    token: Option<Token>,
    /// Whether the peer has a token at all.
    has_token: bool,
}

/// What it means that a peer knows a certain report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the published one.
    Same,
    /// It is another one, or none.
    Other,
    /// This agent counted it before it was put back to an earlier state: the generation is higher than
    /// the published one, or the same with other content.
    Impossible,
}

/// A request that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// For the report.
    Report(Asked),
    /// Takes this mapping.
    Push {
        /// As JSON.
        mapping: &'a [u8],
        /// The peer reads both generations of the protocol.
        is_report_v1: bool,
    },
}

/// A request for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What the peer has already.
    pub known: Known,
    /// How long to hold the request while nothing else is there; `None`: not at all.
    pub wait: Option<Duration>,
    /// The peer reads both generations of the protocol.
    pub is_report_v1: bool,
}

/// Reads the body of a request frame.
///
/// # Errors
/// With the error that the peer gets.
pub fn understand<'a>(body: &'a [u8], mapping: &MappingState) -> Result<Call<'a>, Refusal> {
    let malformed = |error: &dyn std::fmt::Display| {
        Refusal::new(ErrorCode::MalformedRequest, error.to_string())
    };
    let request = Request::decode(body).map_err(|error| malformed(&error))?;
    let is_report_v1 = request.is_report_v1;
    let (knowledge, wait) = match request.method {
        Some(Method::GetReport(known)) => (known, None),
        Some(Method::WaitReport(known, timeout_ms)) => {
            let wait = Duration::from_millis(timeout_ms.into()).min(LONGEST_WAIT);
            (known, Some(wait))
        }
        Some(Method::SyncMapping(mapping)) => {
            return Ok(Call::Push {
                mapping,
                is_report_v1,
            });
        }
        None => {
            let message = mapping.unknown_method();
            return Err(Refusal::new(ErrorCode::UnknownMethod, message).to(is_report_v1));
        }
    };
    let Knowledge {
        generation,
        epoch,
        digest,
        token,
    } = knowledge;
    let digest = match digest {
        [] => None,
        bytes => Some(Digest::try_from(bytes).map_err(|error| malformed(&error))?),
    };
    Ok(Call::Report(Asked {
        known: Known {
            generation,
            epoch,
            digest: digest.filter(|_| is_report_v1),
            token: token.parse().ok(),
            has_token: !token.is_empty(),
        },
        wait,
        is_report_v1,
    }))
}

impl Published {
    /// Makes a stored report ready for being served.
    pub fn new(
        stored: &StoredReport,
        guest_id: Option<&GuestId>,
        last_scan: Scan,
        mapping: MappingState,
    ) -> Self {
        let mut facts = stored.report.facts.clone();
        if let Some(id) = guest_id {
            facts.insert(facts::GUEST_ID.into(), id.to_string());
        }
        Self {
            row: stored.row.clone(),
            facts,
            last_scan,
            packages: stored.report.packages.len(),
            mapping,
            payload: payload(&stored.report).into(),
        }
    }

    /// The same report, scanned again.
    pub fn scanned_again(&self, last_scan: Scan) -> Self {
        Self {
            last_scan,
            ..self.clone()
        }
    }

    /// The same report after a scan at this time that failed; the next one that does not makes that
    /// forgotten.
    pub fn not_scanned(&self, error: &str, at: WallTime) -> Self {
        let mut failed = self.clone();
        let error: String = error.chars().take(LONGEST_ERROR).collect();
        failed.last_scan.facts.extend([
            (facts::LAST_INDEX_ERROR.into(), error),
            (facts::LAST_INDEX_ERROR_AT.into(), at.to_string()),
        ]);
        failed
    }

    /// The same report under another key.
    pub fn renamed(&self, row: ReportRow) -> Self {
        Self {
            row,
            ..self.clone()
        }
    }

    /// The mapping that it was made with.
    pub fn mapping(&self) -> MappingState {
        MappingState {
            hash: self.last_scan.mapping,
            ..self.mapping
        }
    }

    /// When its content was last found to be what is installed.
    pub fn last_scan_at(&self) -> WallTime {
        self.last_scan.at
    }

    /// The digest of its content.
    pub fn digest(&self) -> Digest {
        self.row.digest
    }

    /// Why the scan ran that found it.
    pub fn trigger(&self) -> Trigger {
        self.row.trigger
    }

    /// Packages in it.
    pub fn packages(&self) -> usize {
        self.packages
    }

    /// Why a sensor does not take it, if it is longer than a sensor reads.
    pub fn too_large(&self) -> Option<String> {
        let size = self.meta(true).len() + self.payload.len();
        let most = usize::try_from(MAX_RESPONSE).unwrap_or(usize::MAX);
        (size > most).then(|| {
            format!(
                "the report has {size} bytes, and sensors take at most {MAX_RESPONSE}: it reaches nobody"
            )
        })
    }

    /// Which report this is.
    pub fn key(&self) -> ReportKey {
        self.row.key
    }

    /// What it means that a peer has this.
    pub fn compare(&self, known: &Known) -> Verdict {
        if known.has_token {
            let token = self.token();
            return match &known.token {
                Some(theirs) if *theirs == token => Verdict::Same,
                Some(theirs) if theirs.key.epoch == token.key.epoch => {
                    match theirs.key.generation >= token.key.generation {
                        true => Verdict::Impossible,
                        false => Verdict::Other,
                    }
                }
                _ => Verdict::Other,
            };
        }
        let (epoch, generation) = (self.key().epoch_or_zero(), self.key().generation.get());
        let same_digest = known.digest.map(|digest| digest == self.row.digest);
        let ours = known.epoch == epoch;
        match known.generation {
            0 => Verdict::Other,
            theirs if ours && theirs > generation => Verdict::Impossible,
            theirs if ours && theirs == generation && same_digest == Some(false) => {
                Verdict::Impossible
            }
            theirs => {
                let same_key = theirs == generation && (ours || known.epoch == 0);
                match same_digest.unwrap_or(same_key) {
                    true => Verdict::Same,
                    false => Verdict::Other,
                }
            }
        }
    }

    fn token(&self) -> Token {
        Token::new(self.row.key, &self.row.digest)
    }

    /// The frame that brings the report, in two parts that are sent one after the other.
    pub fn full(&self, is_report_v1: bool) -> (Vec<u8>, &[u8]) {
        let meta = self.meta(is_report_v1);
        let len = u32::try_from(meta.len() + self.payload.len()).unwrap_or(u32::MAX);
        let mut head = len.to_be_bytes().to_vec();
        head.extend(meta);
        (head, &self.payload)
    }

    /// The frame that says that nothing changed.
    pub fn unchanged(&self, is_report_v1: bool) -> Vec<u8> {
        let payload = response::Payload::GetReport(wire::GetReportResponse {
            index_report: None,
            unchanged: true,
        });
        framed(&self.meta(is_report_v1), payload)
    }

    /// Field 1 of the response.
    fn meta(&self, is_report_v1: bool) -> Vec<u8> {
        let mut facts = self.facts.clone();
        facts.extend(self.last_scan.facts.clone());
        facts.extend([
            (facts::LAST_SCAN_AT.into(), self.last_scan.at.to_string()),
            (facts::SCAN_TRIGGER.into(), self.row.trigger.as_str().into()),
        ]);
        // A sensor of version 0.1 compares it with a digest of its own, in another form.
        if is_report_v1 {
            facts.insert(facts::REPORT_DIGEST.into(), self.row.digest.to_string());
        }
        if self.row.digest_form > 1 {
            facts.insert(facts::DIGEST_FORM.into(), self.row.digest_form.to_string());
        }
        let meta = ResponseMeta {
            report_generated_at: Some(self.row.generated_at.into()),
            report_generation: self.row.key.generation.get(),
            epoch: self.row.key.epoch_or_zero(),
            facts,
            ..self.mapping().meta()
        };
        let token = is_report_v1.then(|| self.token().to_string());
        meta::encode(&meta, token.as_deref())
    }

    /// When the scan ran that found it.
    pub fn generated_at(&self) -> WallTime {
        self.row.generated_at
    }
}

/// The frame that answers a push.
pub fn synced(updated: bool, is_report_v1: bool, mapping: &MappingState) -> Vec<u8> {
    let token = is_report_v1.then_some("");
    let answer = wire::SyncRepoCpeMappingResponse { updated };
    let payload = response::Payload::SyncRepoCpeMapping(answer);
    framed(&meta::encode(&mapping.meta(), token), payload)
}

/// The frame of an error.
pub fn refuse(refusal: &Refusal, mapping: &MappingState) -> Vec<u8> {
    let token = refusal.is_report_v1.then_some("");
    let payload = response::Payload::Error(wire::Error {
        code: refusal.code.into(),
        message: refusal.message.clone(),
        details: refusal
            .reason
            .map(|reason| (REASON.to_owned(), reason.to_owned()))
            .into_iter()
            .collect(),
    });
    framed(&meta::encode(&mapping.meta(), token), payload)
}

/// A frame of a meta, as it is encoded, and what follows it.
fn framed(meta: &[u8], payload: response::Payload) -> Vec<u8> {
    let payload = VmServiceResponse {
        meta: None,
        payload: Some(payload),
    }
    .encode_to_vec();
    let len = u32::try_from(meta.len() + payload.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], meta, &payload].concat()
}

/// The response's field 2 alone; the fields of a message may be sent one after the other.
fn payload(report: &Report) -> Vec<u8> {
    VmServiceResponse {
        meta: None,
        payload: Some(response::Payload::GetReport(wire::GetReportResponse {
            index_report: Some(report_to_wire(report)),
            unchanged: false,
        })),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests;
