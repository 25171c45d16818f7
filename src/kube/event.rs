//! The lines of a watch.

use super::KubeError;
use super::refusal::{ApiRefusal, Status};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// What a line of a watch says.
#[derive(Debug, PartialEq, Eq)]
pub enum WatchEvent<T> {
    /// An object is there, or is another than before.
    Changed(T),
    /// An object left what is watched.
    Deleted(T),
    /// Everything up to this version was told.
    Bookmark(String),
    /// The watch failed, whatever the HTTP status said.
    Failed(ApiRefusal),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Marked {
    metadata: MarkedMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkedMeta {
    resource_version: String,
}

/// Reads a line; `None`: an event of a kind that is not known.
///
/// # Errors
/// The line is no event, or its object is not what is watched.
pub fn read_event<T: DeserializeOwned>(line: &[u8]) -> Result<Option<WatchEvent<T>>, KubeError> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(KubeError::broken)?;
    let object = || serde_json::from_str(line.object.get()).map_err(KubeError::broken);
    Ok(Some(match line.kind.as_str() {
        "ADDED" | "MODIFIED" => WatchEvent::Changed(object()?),
        "DELETED" => WatchEvent::Deleted(object()?),
        "BOOKMARK" => {
            let marked: Marked =
                serde_json::from_str(line.object.get()).map_err(KubeError::broken)?;
            WatchEvent::Bookmark(marked.metadata.resource_version)
        }
        "ERROR" => {
            let status: Status =
                serde_json::from_str(line.object.get()).map_err(KubeError::broken)?;
            WatchEvent::Failed(status.into())
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn read(line: &str) -> Option<WatchEvent<Value>> {
        read_event(line.as_bytes()).unwrap()
    }

    #[test]
    fn every_kind_of_event_is_read_as_the_api_server_writes_it() {
        let added = read(r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#);
        assert!(matches!(added, Some(WatchEvent::Changed(o)) if o["metadata"]["name"] == "a"));
        let deleted = read(r#"{"type":"DELETED","object":{}}"#);
        assert!(matches!(deleted, Some(WatchEvent::Deleted(_))));
        let bookmark = read(
            r#"{"type":"BOOKMARK","object":{"kind":"X","apiVersion":"v1","metadata":{"resourceVersion":"214"}}}"#,
        );
        assert_eq!(bookmark, Some(WatchEvent::Bookmark("214".into())));
        let error = read(
            r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (195)","reason":"Expired","code":410}}"#,
        );
        let Some(WatchEvent::Failed(refusal)) = error else {
            panic!("{error:?}");
        };
        assert!(refusal.is_expired());
        assert_eq!(read(r#"{"type":"NEW","object":{}}"#), None);
    }

    #[test]
    fn a_line_that_is_cut_is_an_error() {
        let line = r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#;
        for end in 0..line.len() {
            assert!(
                read_event::<Value>(&line.as_bytes()[..end]).is_err(),
                "{end}"
            );
        }
    }
}
