//! What an agent answers: a request and the published report in, a response out.
//!
//! "Unchanged" is said only when it is certainly true: the same digest where the peer sent one,
//! else the same generation of the same epoch (or of an epoch the peer does not know of).

use crate::clock::WallTime;
use crate::report::{Digest, Facts, GuestId, Report, ReportKey, Trigger, facts};
use crate::store::report_table::{ReportRow, StoredReport};
use crate::wire::message::{
    self as wire, ErrorCode, GetReport, ResponseMeta, VmServiceRequest, VmServiceResponse,
    WaitReport, request, response,
};
use crate::wire::{frame, method, report_to_wire};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// Longest a request is held, whatever the peer asks for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A report as it is served: encoded once, sent many times.
#[derive(Debug)]
pub struct Published {
    row: ReportRow,
    /// Facts that go into the meta of every answer, but for the time of the last scan.
    facts: Facts,
    last_scan_at: WallTime,
    packages: usize,
    /// Field 2 of the response, tag and length included.
    payload: Arc<[u8]>,
}

/// What the peer has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    generation: u32,
    epoch: u32,
    digest: Option<Digest>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An answer at once.
    Get(Known),
    /// An answer as soon as the report is another one, or this time is over.
    Wait(Known, Duration),
}

/// Why a request gets an error for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// With a message for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// No scan has ended yet.
    pub fn not_ready() -> Self {
        Self::new(
            ErrorCode::NotReady,
            "the first scan has not ended yet; ask again in some seconds",
        )
    }
}

/// Reads the body of a request frame.
pub fn understand(body: &[u8]) -> Result<Asked, Refusal> {
    let request = VmServiceRequest::decode(body)
        .map_err(|error| Refusal::new(ErrorCode::MalformedRequest, error.to_string()))?;
    let known = |generation, epoch, digest: &[u8]| {
        let digest = (!digest.is_empty())
            .then(|| Digest::try_from(digest))
            .transpose();
        digest
            .map(|digest| Known {
                generation,
                epoch,
                digest,
            })
            .map_err(|error| Refusal::new(ErrorCode::MalformedRequest, error.to_string()))
    };
    match request.method {
        Some(request::Method::GetReport(GetReport {
            last_known_generation,
            known_epoch,
            known_digest,
        })) => Ok(Asked::Get(known(
            last_known_generation,
            known_epoch,
            &known_digest,
        )?)),
        Some(request::Method::WaitReport(WaitReport {
            last_known_generation,
            known_epoch,
            known_digest,
            timeout_ms,
        })) => Ok(Asked::Wait(
            known(last_known_generation, known_epoch, &known_digest)?,
            Duration::from_millis(timeout_ms.into()).min(LONGEST_WAIT),
        )),
        None => Err(Refusal::new(
            ErrorCode::UnknownMethod,
            "this agent knows get_report and wait_report",
        )),
    }
}

impl Published {
    /// Makes a stored report ready for being served.
    pub fn new(stored: &StoredReport, guest_id: Option<&GuestId>, last_scan_at: WallTime) -> Self {
        let mut facts = stored.report.facts.clone();
        facts.insert(
            facts::SCAN_TRIGGER.into(),
            stored.row.trigger.as_str().into(),
        );
        facts.insert(facts::REPORT_DIGEST.into(), stored.row.digest.to_string());
        if let Some(id) = guest_id {
            facts.insert(facts::GUEST_ID.into(), id.to_string());
        }
        Self {
            row: stored.row.clone(),
            facts,
            last_scan_at,
            packages: stored.report.packages.len(),
            payload: payload(&stored.report).into(),
        }
    }

    /// The same report, scanned again.
    pub fn scanned_again(&self, last_scan_at: WallTime) -> Self {
        Self {
            row: self.row.clone(),
            facts: self.facts.clone(),
            last_scan_at,
            packages: self.packages,
            payload: Arc::clone(&self.payload),
        }
    }

    /// When its content was last found to be what is installed.
    pub fn last_scan_at(&self) -> WallTime {
        self.last_scan_at
    }

    /// Over its content.
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

    /// Which report this is.
    pub fn key(&self) -> ReportKey {
        self.row.key
    }

    /// Whether the peer has it already.
    pub fn is_known(&self, known: Known) -> bool {
        if known.generation == 0 {
            return false;
        }
        match known.digest {
            Some(digest) => digest == self.row.digest,
            None => {
                known.generation == self.row.key.generation.get()
                    && (known.epoch == 0 || known.epoch == self.row.key.epoch_or_zero())
            }
        }
    }

    /// The frame that brings the report, in two parts that are sent one after the other.
    pub fn full(&self) -> (Vec<u8>, &[u8]) {
        let meta = VmServiceResponse {
            meta: Some(self.meta()),
            payload: None,
        };
        let meta = meta.encode_to_vec();
        let len = u32::try_from(meta.len() + self.payload.len()).unwrap_or(u32::MAX);
        let mut head = len.to_be_bytes().to_vec();
        head.extend(meta);
        (head, &self.payload)
    }

    /// The frame that says that nothing changed.
    pub fn unchanged(&self) -> Vec<u8> {
        frame::encode(&VmServiceResponse {
            meta: Some(self.meta()),
            payload: Some(response::Payload::GetReport(wire::GetReportResponse {
                index_report: None,
                unchanged: true,
            })),
        })
    }

    fn meta(&self) -> ResponseMeta {
        let mut facts = self.facts.clone();
        facts.insert(facts::LAST_SCAN_AT.into(), self.last_scan_at.to_string());
        ResponseMeta {
            report_generated_at: Some(self.row.generated_at.into()),
            report_generation: self.row.key.generation.get(),
            epoch: self.row.key.epoch_or_zero(),
            facts,
            ..bare_meta()
        }
    }

    /// When the scan ran that found it.
    pub fn generated_at(&self) -> WallTime {
        self.row.generated_at
    }
}

/// The frame of an error.
pub fn refuse(refusal: &Refusal) -> Vec<u8> {
    frame::encode(&VmServiceResponse {
        meta: Some(bare_meta()),
        payload: Some(response::Payload::Error(wire::Error {
            code: refusal.code.into(),
            message: refusal.message.clone(),
            details: Default::default(),
        })),
    })
}

fn bare_meta() -> ResponseMeta {
    ResponseMeta {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        supported_methods: vec![method::GET_REPORT.into(), method::WAIT_REPORT.into()],
        ..ResponseMeta::default()
    }
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
mod tests {
    use super::*;
    use crate::report::{Epoch, Generation, Package};
    use proptest::prelude::*;

    #[test]
    fn a_full_answer_is_one_frame_with_meta_and_report() {
        let published = sample();
        let (head, tail) = published.full();
        let bytes = [&head[..], tail].concat();
        let frame::Decoded::Frame { body_len } = frame::decode(&bytes, 1 << 20).unwrap() else {
            panic!("not a whole frame");
        };
        assert_eq!(body_len + frame::HEADER, bytes.len());
        let response = VmServiceResponse::decode(&bytes[frame::HEADER..]).unwrap();
        let meta = response.meta.unwrap();
        assert_eq!((meta.epoch, meta.report_generation), (77, 12));
        assert_eq!(meta.facts[facts::SCAN_TRIGGER], "reactive");
        assert_eq!(meta.supported_methods, ["get_report", "wait_report"]);
        let Some(response::Payload::GetReport(answer)) = response.payload else {
            panic!("no report");
        };
        assert_eq!(
            answer
                .index_report
                .unwrap()
                .contents
                .unwrap()
                .packages
                .len(),
            1
        );
    }

    #[test]
    fn unchanged_needs_the_same_digest_or_the_same_generation_of_the_same_epoch() {
        let published = sample();
        let digest = Some(published.row.digest);
        let other = Some(Report::default().digest());
        for (generation, epoch, digest, known) in [
            (12, 77, None, true),
            (12, 0, None, true),
            (12, 78, None, false),
            (11, 77, None, false),
            (0, 77, None, false),
            (0, 77, digest, false),
            (3, 5, digest, true),
            (12, 77, other, false),
        ] {
            let asked = Known {
                generation,
                epoch,
                digest,
            };
            assert_eq!(published.is_known(asked), known, "{asked:?}");
        }
    }

    #[test]
    fn requests_are_understood_or_refused_with_a_code() {
        let code = |body: &[u8]| understand(body).unwrap_err().code;
        assert_eq!(code(b""), ErrorCode::UnknownMethod);
        assert_eq!(code(b"\xff\xff\xff"), ErrorCode::MalformedRequest);
        let short_digest = request(request::Method::GetReport(GetReport {
            known_digest: vec![1, 2],
            ..GetReport::default()
        }));
        assert_eq!(code(&short_digest), ErrorCode::MalformedRequest);
        let wait = request(request::Method::WaitReport(WaitReport {
            timeout_ms: u32::MAX,
            ..WaitReport::default()
        }));
        assert_eq!(
            understand(&wait),
            Ok(Asked::Wait(Known::default(), LONGEST_WAIT))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>) {
            let _ = understand(&body);
        }
    }

    fn request(method: request::Method) -> Vec<u8> {
        VmServiceRequest {
            meta: None,
            method: Some(method),
        }
        .encode_to_vec()
    }

    fn sample() -> Published {
        let report = Report {
            packages: vec![Package {
                name: "bash".into(),
                ..Package::default()
            }],
            ..Report::default()
        };
        let row = ReportRow {
            key: ReportKey {
                epoch: Epoch::new(77),
                generation: Generation::new(12).unwrap(),
            },
            digest: report.digest(),
            trigger: Trigger::Reactive,
            generated_at: WallTime::from_unix_ms(5),
        };
        Published::new(
            &StoredReport { row, report },
            None,
            WallTime::from_unix_ms(6),
        )
    }
}
