//! Why a request gets an error for an answer.

use crate::wire::message::{EMPTY_DATABASE, ErrorCode};

/// Why a request gets an error for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// For programs that tell errors with the same code apart.
    pub reason: Option<&'static str>,
    /// The peer reads both generations of the protocol.
    pub is_report_v1: bool,
}

impl Refusal {
    /// With a message for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            reason: None,
            is_report_v1: false,
        }
    }

    /// The same for a peer that may read both generations of the protocol.
    pub fn to(self, is_report_v1: bool) -> Self {
        Self {
            is_report_v1,
            ..self
        }
    }

    /// There is no report yet.
    pub fn not_ready(why: NotReady) -> Self {
        Self {
            reason: Some(why.reason()),
            ..Self::new(ErrorCode::NotReady, why.message())
        }
    }

    /// Reports are withheld until the sensor has pushed a mapping.
    pub fn mapping_required() -> Self {
        Self::new(
            ErrorCode::MappingRequired,
            "no mapping of repositories to CPEs was pushed yet (--require-mapping on); push one with sync_repo_cpe_mapping",
        )
    }

    /// This agent takes its mapping from elsewhere.
    pub fn mapping_not_sensor_managed() -> Self {
        Self::new(
            ErrorCode::MappingNotSensorManaged,
            "this agent takes its mapping from the file or URL of --repo-cpe",
        )
    }
}

/// Why there is no report yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotReady {
    /// No scan has ended yet.
    #[default]
    FirstScan,
    /// The database is new and holds no package yet.
    EmptyDatabase,
    /// No scan ended well.
    ScanFailed,
    /// No scan has ended since the first mapping came, and reports without one are withheld.
    MappingNew,
}

impl NotReady {
    /// What programs read, in `details["reason"]` of the error.
    pub fn reason(self) -> &'static str {
        match self {
            Self::FirstScan => "first_scan",
            Self::EmptyDatabase => EMPTY_DATABASE,
            Self::ScanFailed => "scan_failed",
            Self::MappingNew => "mapping_new",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::FirstScan => "the first scan has not ended yet; ask again in some seconds",
            Self::EmptyDatabase => {
                "the rpm database is new and holds no package yet; the first one is reported at once to a peer that waits"
            }
            Self::ScanFailed => {
                "no scan has ended well yet; `afferent status` in the guest says why"
            }
            Self::MappingNew => {
                "the first scan with a mapping has not ended yet; ask again in some seconds"
            }
        }
    }
}
