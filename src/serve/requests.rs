//! Reading requests within bounds.
//!
//! ```text
//! up to 4 KiB   any request; a real one has some 100 bytes
//! up to 1 MiB   any request, four at a time
//! up to 6 MiB   only one that pushes a mapping: its first bytes say so, the rest is read after
//! ```
//!
//! All long pushes together hold a bounded amount of memory. It is taken as bytes arrive, so that a peer that
//! announces much and sends little keeps nobody out.

use super::mapping::{MappingState, UpdatePath};
use super::refusal::Refusal;
use super::respond::{self, Asked, Call};
use crate::transport::{ReadError, Stream, read_len, read_rest, read_some};
use crate::wire::message::ErrorCode;
use crate::wire::request::begins_push;
use crate::wire::{MAX_PUSH, MAX_REQUEST};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A request longer than this is read only while few others are.
const ORDINARY_REQUEST: usize = 4096;
const LARGE_REQUESTS: usize = 4;

/// Bytes that pushes over 1 MiB hold together, received and not yet kept.
const PUSHED_BYTES: usize = 24 << 20;

/// So many of them are taken at a time.
const PUSH_STEP: usize = 64 << 10;

/// Within so many bytes a long request has to show that it pushes a mapping: its meta comes before that.
const BEGINNING: usize = 64 << 10;

/// What came over a connection.
pub(super) enum Received<'a> {
    /// A request for the report.
    Report(Asked),
    /// A mapping.
    Push(ReceivedPush<'a>),
}

/// A mapping that is to be kept.
pub(super) struct ReceivedPush<'a> {
    pub(super) mapping: Vec<u8>,
    pub(super) is_report_v1: bool,
    /// Bounds the memory of long requests: held until the mapping is.
    pub(super) _permit: Option<SemaphorePermit<'a>>,
}

/// What came over a connection in place of a request.
pub(super) enum NoRequest {
    /// Something that is answered with an error.
    Refused(Refusal),
    /// The beginning of a TLS handshake.
    Tls,
    /// Nothing that could be answered.
    Nothing,
}

/// How many long requests are read at a time.
pub(super) struct Requests {
    large: Semaphore,
    /// Bytes of long pushes.
    pushed: Semaphore,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            large: Semaphore::new(LARGE_REQUESTS),
            pushed: Semaphore::new(PUSHED_BYTES),
        }
    }
}

impl Requests {
    /// Reads a request. What is none is an `Err` that says how it ends.
    pub(super) async fn read(
        &self,
        stream: &mut Stream,
        mapping: &MappingState,
    ) -> Result<Received<'_>, NoRequest> {
        let is_plain = !matches!(stream, Stream::Tls(_));
        let len = match read_len(stream, MAX_PUSH).await {
            Err(ReadError::Frame(error)) if is_plain && error.is_tls_handshake() => {
                return Err(NoRequest::Tls);
            }
            read => read?,
        };
        let mut body = Vec::new();
        let permit = if len > MAX_REQUEST as usize {
            begin_push(stream, &mut body, len, mapping).await?;
            Some(self.read_push(stream, &mut body, len).await?)
        } else if len > ORDINARY_REQUEST {
            let permit = self.large.acquire().await;
            Some(permit.map_err(|_| NoRequest::Nothing)?)
        } else {
            None
        };
        read_rest(stream, &mut body, len).await?;
        let (start, len, is_report_v1) = match respond::understand(&body, mapping)? {
            Call::Report(asked) => return Ok(Received::Report(asked)),
            Call::Push { is_report_v1, .. } if mapping.path != UpdatePath::Sensor => {
                return Err(Refusal::mapping_not_sensor_managed()
                    .to(is_report_v1)
                    .into());
            }
            Call::Push {
                mapping,
                is_report_v1,
            } => {
                let start = mapping.as_ptr().addr().saturating_sub(body.as_ptr().addr());
                (start, mapping.len(), is_report_v1)
            }
        };
        // In place: a copy would take as much memory again.
        body.truncate(start + len);
        body.drain(..start.min(body.len()));
        Ok(Received::Push(ReceivedPush {
            mapping: body,
            is_report_v1,
            _permit: permit,
        }))
    }

    /// Reads the rest of a long push.
    async fn read_push(
        &self,
        stream: &mut Stream,
        body: &mut Vec<u8>,
        len: usize,
    ) -> Result<SemaphorePermit<'_>, NoRequest> {
        let take = |bytes: usize| {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.pushed.try_acquire_many(bytes).map_err(|_| {
                let message = "other mappings are being received; push again after a moment";
                Refusal::new(ErrorCode::Busy, message)
            })
        };
        let mut permit = take(body.len())?;
        while body.len() < len {
            let next = len.min(body.len() + PUSH_STEP);
            permit.merge(take(next - body.len())?);
            read_rest(stream, body, next).await?;
        }
        Ok(permit)
    }
}

/// Reads as much of a long request as shows that it pushes a mapping.
async fn begin_push(
    stream: &mut Stream,
    body: &mut Vec<u8>,
    len: usize,
    mapping: &MappingState,
) -> Result<(), NoRequest> {
    loop {
        match begins_push(body) {
            Some(true) => break,
            None if body.len() < BEGINNING => read_some(stream, body, BEGINNING).await?,
            Some(false) | None => {
                let message = format!(
                    "frame of {len} bytes, at most {MAX_REQUEST} are allowed but for a push of a mapping"
                );
                return Err(Refusal::new(ErrorCode::RequestTooLarge, message).into());
            }
        }
    }
    match mapping.path {
        UpdatePath::Sensor => Ok(()),
        UpdatePath::Url => Err(Refusal::mapping_not_sensor_managed().into()),
    }
}

impl From<Refusal> for NoRequest {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ReadError> for NoRequest {
    fn from(error: ReadError) -> Self {
        let code = match error {
            ReadError::Frame(_) => ErrorCode::RequestTooLarge,
            ReadError::Truncated => ErrorCode::MalformedRequest,
            ReadError::Closed | ReadError::Io(_) => return Self::Nothing,
        };
        Self::Refused(Refusal::new(code, error.to_string()))
    }
}
