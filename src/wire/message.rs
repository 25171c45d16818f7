//! The protobuf messages, as prost structs with their field numbers written by hand.
//!
//! Names and numbers are those of StackRox's VM service (`virtualmachine/v1`) and of Clair's index
//! report (`scanner/v4`); numbers from 1000 are ours. No field is ever renumbered or reused.
#![allow(missing_docs, clippy::missing_docs_in_private_items)]

use crate::clock::WallTime;
use std::collections::BTreeMap;

/// What a sensor says.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VmServiceRequest {
    #[prost(message, optional, tag = "1")]
    pub meta: Option<RequestMeta>,
    #[prost(oneof = "request::Method", tags = "2, 3, 1000")]
    pub method: Option<request::Method>,
}

pub mod request {
    /// What is asked for; a request without one is answered with UNKNOWN_METHOD.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Method {
        #[prost(message, tag = "2")]
        GetReport(super::GetReport),
        #[prost(message, tag = "3")]
        SyncRepoCpeMapping(super::SyncRepoCpeMapping),
        #[prost(message, tag = "1000")]
        WaitReport(super::WaitReport),
    }
}

/// Gives the agent a mapping from repositories to CPEs, as JSON.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SyncRepoCpeMapping {
    #[prost(bytes = "vec", tag = "1")]
    pub mapping: Vec<u8>,
}

/// Whether the mapping is another one than the agent had.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SyncRepoCpeMappingResponse {
    #[prost(bool, tag = "1")]
    pub updated: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestMeta {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(string, repeated, tag = "2")]
    pub capabilities: Vec<String>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub facts: BTreeMap<String, String>,
}

/// A request that names the known report by a token, as newer peers do: field 1 of `GetReport` is then
/// a string.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TokenRequest {
    #[prost(message, optional, tag = "1")]
    pub meta: Option<RequestMeta>,
    #[prost(message, optional, tag = "2")]
    pub get_report: Option<GetReportByToken>,
}

/// The report, unless it is still the one with this token. An empty token forces it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetReportByToken {
    #[prost(string, tag = "1")]
    pub last_known_token: String,
}

/// The report, unless the sensor knows it already. Generation 0 forces it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetReport {
    #[prost(uint32, tag = "1")]
    pub last_known_generation: u32,
    #[prost(uint32, tag = "2")]
    pub known_epoch: u32,
    #[prost(bytes = "vec", tag = "1000")]
    pub known_digest: Vec<u8>,
}

/// The same, but held until the report is another one or `timeout_ms` are over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WaitReport {
    #[prost(uint32, tag = "1")]
    pub last_known_generation: u32,
    #[prost(uint32, tag = "2")]
    pub known_epoch: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub known_digest: Vec<u8>,
    #[prost(uint32, tag = "4")]
    pub timeout_ms: u32,
}

/// What an agent answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VmServiceResponse {
    #[prost(message, optional, tag = "1")]
    pub meta: Option<ResponseMeta>,
    #[prost(oneof = "response::Payload", tags = "2, 3, 4")]
    pub payload: Option<response::Payload>,
}

pub mod response {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Payload {
        #[prost(message, tag = "2")]
        GetReport(super::GetReportResponse),
        #[prost(message, tag = "3")]
        Error(super::Error),
        #[prost(message, tag = "4")]
        SyncRepoCpeMapping(super::SyncRepoCpeMappingResponse),
    }
}

/// In the layout of the first generation of peers. The second one has other types under the numbers
/// 3, 6 and 7; [`super::meta`] writes and reads both.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseMeta {
    #[prost(string, tag = "1")]
    pub agent_version: String,
    #[prost(message, optional, tag = "2")]
    pub report_generated_at: Option<Timestamp>,
    #[prost(uint32, tag = "3")]
    pub report_generation: u32,
    #[prost(string, repeated, tag = "4")]
    pub supported_methods: Vec<String>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub facts: BTreeMap<String, String>,
    #[prost(uint32, tag = "6")]
    pub epoch: u32,
    /// Of the mapping from repositories to CPEs: sent also when it is empty.
    #[prost(string, optional, tag = "7")]
    pub mapping_hash: Option<String>,
    /// Who brings that mapping: 0 not said, 1 the sensor, 2 a URL or file.
    #[prost(uint32, tag = "8")]
    pub update_path: u32,
    #[prost(string, repeated, tag = "1000")]
    pub capabilities: Vec<String>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<WallTime> for Timestamp {
    fn from(time: WallTime) -> Self {
        let ms = time.unix_ms();
        Self {
            seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
            nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
        }
    }
}

impl From<Timestamp> for WallTime {
    /// Times before 1970 and nonsense in the nanoseconds become the nearest time that is one.
    fn from(time: Timestamp) -> Self {
        let seconds = u64::try_from(time.seconds).unwrap_or(0);
        let ms = u64::try_from(time.nanos.clamp(0, 999_999_999) / 1_000_000).unwrap_or(0);
        Self::from_unix_ms(seconds.saturating_mul(1000).saturating_add(ms))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetReportResponse {
    #[prost(message, optional, tag = "1")]
    pub index_report: Option<IndexReport>,
    #[prost(bool, tag = "2")]
    pub unchanged: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Error {
    #[prost(enumeration = "ErrorCode", tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub details: BTreeMap<String, String>,
}

/// Key of `Error.details`: which of several causes of one code it is.
pub const REASON: &str = "reason";

/// Value of [`REASON`] with NOT_READY: the RPM database is new and holds no package yet. A peer that
/// waits is answered as soon as there is one.
pub const EMPTY_DATABASE: &str = "empty_database";

/// What went wrong, for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ErrorCode {
    Unspecified = 0,
    UnknownMethod = 1,
    NotReady = 2,
    Internal = 3,
    MalformedRequest = 4,
    RequestTooLarge = 5,
    Busy = 6,
    MappingRequired = 7,
    MappingNotSensorManaged = 8,
}

impl ErrorCode {
    /// As it is written in the protocol's description.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "UNSPECIFIED",
            Self::UnknownMethod => "UNKNOWN_METHOD",
            Self::NotReady => "NOT_READY",
            Self::Internal => "INTERNAL",
            Self::MalformedRequest => "MALFORMED_REQUEST",
            Self::RequestTooLarge => "REQUEST_TOO_LARGE",
            Self::Busy => "BUSY",
            Self::MappingRequired => "MAPPING_REQUIRED",
            Self::MappingNotSensorManaged => "MAPPING_NOT_SENSOR_MANAGED",
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct IndexReport {
    #[prost(string, tag = "1")]
    pub hash_id: String,
    #[prost(string, tag = "2")]
    pub state: String,
    #[prost(bool, tag = "3")]
    pub success: bool,
    #[prost(string, tag = "4")]
    pub err: String,
    #[prost(message, optional, tag = "5")]
    pub contents: Option<Contents>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Contents {
    #[prost(btree_map = "string, message", tag = "5")]
    pub packages: BTreeMap<String, Package>,
    #[prost(btree_map = "string, message", tag = "6")]
    pub distributions: BTreeMap<String, Distribution>,
    #[prost(btree_map = "string, message", tag = "7")]
    pub repositories: BTreeMap<String, Repository>,
    #[prost(btree_map = "string, message", tag = "8")]
    pub environments: BTreeMap<String, EnvironmentList>,
    /// Repositories without a CPE: among [`Self::repositories`] they would count as scanned.
    #[prost(btree_map = "string, message", tag = "1000")]
    pub unmapped: BTreeMap<String, Repository>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Package {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub version: String,
    #[prost(string, tag = "6")]
    pub kind: String,
    #[prost(message, optional, boxed, tag = "7")]
    pub source: Option<Box<Package>>,
    #[prost(string, tag = "8")]
    pub package_db: String,
    #[prost(string, tag = "9")]
    pub repository_hint: String,
    #[prost(string, tag = "10")]
    pub module: String,
    #[prost(string, tag = "11")]
    pub arch: String,
    #[prost(string, tag = "12")]
    pub cpe: String,
    #[prost(string, tag = "1000")]
    pub vendor: String,
    #[prost(string, tag = "1001")]
    pub license: String,
    /// The name, when it is not UTF-8; `name` is its escape then.
    #[prost(bytes = "vec", tag = "1002")]
    pub raw_name: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Distribution {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub did: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub version: String,
    #[prost(string, tag = "5")]
    pub version_code_name: String,
    #[prost(string, tag = "6")]
    pub version_id: String,
    #[prost(string, tag = "7")]
    pub arch: String,
    #[prost(string, tag = "8")]
    pub cpe: String,
    #[prost(string, tag = "9")]
    pub pretty_name: String,
    /// `VERSION`, where `version` is not all of it.
    #[prost(string, optional, tag = "1000")]
    pub version_verbatim: Option<String>,
    /// `VERSION_ID`, where `version_id` is not all of it.
    #[prost(string, optional, tag = "1001")]
    pub version_id_verbatim: Option<String>,
    /// `CPE_NAME`, where `cpe` is in another form or says nothing.
    #[prost(string, optional, tag = "1002")]
    pub cpe_verbatim: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Repository {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub key: String,
    #[prost(string, tag = "4")]
    pub uri: String,
    #[prost(string, tag = "5")]
    pub cpe: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EnvironmentList {
    #[prost(message, repeated, tag = "1")]
    pub environments: Vec<Environment>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Environment {
    #[prost(string, tag = "1")]
    pub package_db: String,
    #[prost(string, tag = "2")]
    pub introduced_in: String,
    #[prost(string, tag = "3")]
    pub distribution_id: String,
    #[prost(string, repeated, tag = "4")]
    pub repository_ids: Vec<String>,
    #[prost(enumeration = "Origin", tag = "1000")]
    pub origin: i32,
}

/// What a history of the package manager says of where a package came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Origin {
    /// The agent does not say.
    Unspecified = 0,
    /// There is no entry for the package.
    NoEntry = 1,
    /// Its entry names a repository without a CPE, or none.
    Unmapped = 2,
    /// Its entry names a repository with a CPE.
    Mapped = 3,
}
