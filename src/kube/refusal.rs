//! Answers of the API server that are errors: what it says, and what that means.

use crate::visible::Foreign;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// An answer with another code than the wanted one, or the ERROR event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRefusal {
    /// HTTP status.
    pub code: u16,
    /// The reason of a `Status` object: `Forbidden`, `Expired`; empty where the body is plain text.
    pub reason: String,
    /// What it says, as people may see it.
    pub message: Foreign,
    /// When the API server wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// A `Status` object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    code: u16,
    reason: String,
    message: String,
}

impl From<Status> for ApiRefusal {
    fn from(status: Status) -> Self {
        Self {
            code: status.code,
            reason: status.reason,
            message: status.message.as_str().into(),
            retry_after: None,
        }
    }
}

impl ApiRefusal {
    /// From the head and the beginning of the body. Plain text is normal for 404, 429 and 503.
    pub(super) fn read(code: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let status = serde_json::from_slice::<Status>(body).ok();
        let refusal = match status.filter(|status| !status.message.is_empty()) {
            Some(status) => Self::from(status),
            None => Self {
                code,
                reason: String::new(),
                message: String::from_utf8_lossy(body).trim().into(),
                retry_after: None,
            },
        };
        Self {
            code,
            retry_after,
            ..refusal
        }
    }

    /// Whether the version that was asked for is no longer there: list again.
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// Whether the API server has too much to do.
    pub fn is_overload(&self) -> bool {
        self.code == 429
    }

    /// Whether the token is not accepted. virt-api refuses with 401, too, but in plain text: then
    /// the token is good, and a right is missing.
    pub fn is_bad_token(&self) -> bool {
        self.code == 401 && !self.reason.is_empty()
    }
}

impl fmt::Display for ApiRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, .. } = self;
        match code {
            401 if self.is_bad_token() => write!(
                f,
                "the API server does not accept the token (401): it expired, or is for another audience or cluster"
            ),
            401 => write!(
                f,
                "virt-api refuses (401 {message}): the service account needs the role for virtualmachineinstances/vsock"
            ),
            403 => write!(f, "the API server forbids it (403): {message}"),
            404 if self.reason.is_empty() => write!(
                f,
                "the API has no such resource (404 {message}): KubeVirt is not installed, or is being removed"
            ),
            429 => write!(f, "the API server has too many requests (429): {message}"),
            503 => write!(f, "not available (503): {message}"),
            code => write!(f, "the API server says {code}: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_object_and_plain_text_are_both_read() {
        let forbidden = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"virtualmachines.kubevirt.io is forbidden: User \"nobody\" cannot list resource","reason":"Forbidden","details":{"group":"kubevirt.io"},"code":403}"#;
        let refusal = ApiRefusal::read(403, None, forbidden);
        assert_eq!(refusal.reason, "Forbidden");
        let text = refusal.to_string();
        assert!(
            text.starts_with("the API server forbids it (403): virtualmachines"),
            "{text}"
        );
        let second = Duration::from_secs(1);
        let busy = ApiRefusal::read(
            429,
            Some(second),
            b"Too many requests, please try again later.\n",
        );
        assert!(busy.is_overload());
        assert_eq!(busy.retry_after, Some(second));
        assert!(
            busy.to_string().ends_with("please try again later."),
            "{busy}"
        );
    }

    #[test]
    fn an_unknown_token_is_told_from_a_refusal_by_virt_api() {
        let status = br#"{"kind":"Status","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#;
        assert!(ApiRefusal::read(401, None, status).is_bad_token());
        let plain = ApiRefusal::read(401, None, b"denied\x1b[2J");
        assert!(!plain.is_bad_token());
        assert!(plain.to_string().contains("virtualmachineinstances/vsock"));
        assert!(!plain.to_string().contains('\x1b'));
    }

    #[test]
    fn a_resource_that_is_absent_is_told_from_an_object_that_is() {
        let absent = ApiRefusal::read(404, None, b"404 page not found\n");
        assert!(absent.to_string().contains("KubeVirt is not installed"));
        let object = ApiRefusal::read(
            404,
            None,
            br#"{"message":"vmi \"a\" not found","reason":"NotFound"}"#,
        );
        assert_eq!(
            object.to_string(),
            "the API server says 404: vmi \"a\" not found"
        );
    }
}
