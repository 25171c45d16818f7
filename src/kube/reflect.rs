//! Follows all objects of one kind: a list, then a watch, again and again. Whoever follows is told every object
//! and keeps what it needs of it.
//!
//! ```text
//! list ── pages of 500 ──► Begun Listed.. Complete ── watch ──► Changed, Deleted
//!   ▲                                                   │ end of stream: watch again from the last version
//!   └── 410, 2 minutes of silence, half an hour, a list is wanted ──┘
//! ```

use super::KubeError;
use super::client::KubeClient;
use super::event::{WatchEvent, read_event};
use super::items::{ItemSplitter, SplitFault};
use super::object::{KubeObject, ObjectMeta, Told};
use super::turn::{Turn, TurnPolicy};
use crate::clock;
use crate::percent::encode;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Objects of a page.
const PAGE: u32 = 500;

/// A bookmark comes every minute: a watch that is silent for longer than this is not believed.
const SILENCE: Duration = Duration::from_secs(130);

/// A watch that the server does not end is ended this long after its time.
const GRACE: Duration = Duration::from_secs(30);

/// Longest line of a watch: an object, and what is around it.
const LONGEST_LINE: usize = 5 << 20;

#[derive(Deserialize)]
struct MetaOnly {
    metadata: ObjectMeta,
}

/// Follows one kind of object.
pub struct Reflector {
    client: Arc<KubeClient>,
    /// Path of the list.
    path: String,
    selector: Option<String>,
    relist: Arc<Notify>,
}

#[derive(Deserialize)]
struct ListHead {
    metadata: ListMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default, rename = "continue")]
    more: String,
    resource_version: String,
}

/// How a watch came to its end.
enum WatchEnd {
    Over,
    Silent,
    ListWanted,
}

impl Reflector {
    /// Of the objects at `path`, in all namespaces or one, with these labels if any.
    pub fn new(client: Arc<KubeClient>, path: String, selector: Option<String>) -> Self {
        Self {
            client,
            path,
            selector,
            relist: Arc::new(Notify::new()),
        }
    }

    /// Notified, it makes a list.
    pub fn relist(&self) -> Arc<Notify> {
        self.relist.clone()
    }

    /// Follows until it is dropped.
    pub async fn run<T: KubeObject>(self, mut tell: impl FnMut(Told<T>)) {
        let mut pace = TurnPolicy::default();
        loop {
            let result = match pace.next(clock::now(), fastrand::f64()) {
                Turn::Pause(until) => {
                    clock::sleep_until(Some(until)).await;
                    continue;
                }
                Turn::List => {
                    let listed = self.list(&mut tell).await;
                    listed.map(|version| {
                        tell(Told::Complete);
                        tell(Told::Well);
                        pace.listed(version, clock::now(), fastrand::f64());
                    })
                }
                Turn::Watch { version, time } => {
                    let began = clock::now();
                    let watched = self.watch(&version, time, &mut pace, &mut tell).await;
                    watched.map(|end| match end {
                        WatchEnd::Over => {
                            let now = clock::now();
                            let lasted = now.saturating_duration_since(began);
                            pace.ended(lasted, now, fastrand::f64());
                        }
                        WatchEnd::Silent => {
                            tracing::debug!(path = self.path, "a watch is silent, listing");
                            pace.want_list();
                        }
                        WatchEnd::ListWanted => pace.want_list(),
                    })
                }
            };
            if let Err(error) = result {
                pace.failed(&error, clock::now(), fastrand::f64());
                // An expired version is no trouble: a list takes its place.
                if !error.refusal().is_some_and(|refusal| refusal.is_expired()) {
                    tell(Told::Trouble(error));
                }
            }
        }
    }

    fn target(&self, query: &str) -> String {
        let selector = self.selector.as_deref().map_or(String::new(), |selector| {
            format!("&labelSelector={}", encode(selector))
        });
        format!("{}?{query}{selector}", self.path)
    }

    /// Lists everything; gives the version of the list.
    async fn list<T: KubeObject>(
        &self,
        tell: &mut impl FnMut(Told<T>),
    ) -> Result<String, KubeError> {
        tell(Told::Begun);
        let mut more = String::new();
        loop {
            let query = match more.as_str() {
                "" => format!("limit={PAGE}"),
                more => format!("limit={PAGE}&continue={}", encode(more)),
            };
            let mut body = self.client.get(&self.target(&query)).await?;
            let (mut splitter, mut part) = (ItemSplitter::default(), Vec::new());
            while body.next(&mut part).await? {
                splitter
                    .push(&part, |item| {
                        if let Some(told) = readable(item, Told::Listed) {
                            tell(told);
                        }
                        Ok::<_, SplitFault>(())
                    })
                    .map_err(KubeError::broken)?;
                part.clear();
            }
            let rest = splitter.finish().map_err(KubeError::broken)?;
            let head: ListHead = serde_json::from_slice(&rest).map_err(KubeError::broken)?;
            if head.metadata.more.is_empty() {
                return Ok(head.metadata.resource_version);
            }
            more = head.metadata.more;
        }
    }

    async fn watch<T: KubeObject>(
        &self,
        version: &str,
        time: Duration,
        pace: &mut TurnPolicy,
        tell: &mut impl FnMut(Told<T>),
    ) -> Result<WatchEnd, KubeError> {
        let query = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            time.as_secs(),
            encode(version)
        );
        let body = self.client.get(&self.target(&query)).await?;
        tell(Told::Well);
        let lines = self.follow(body, pace, tell);
        let wanted = self.relist.notified();
        tokio::select! {
            () = wanted => Ok(WatchEnd::ListWanted),
            ended = timeout(time + GRACE, lines) => match ended {
                Ok(Err(KubeError::Timeout(_))) | Err(_) => Ok(WatchEnd::Silent),
                Ok(ended) => ended.map(|()| WatchEnd::Over),
            },
        }
    }

    async fn follow<T: KubeObject>(
        &self,
        mut body: super::client::Body,
        pace: &mut TurnPolicy,
        tell: &mut impl FnMut(Told<T>),
    ) -> Result<(), KubeError> {
        body.set_read_timeout(SILENCE);
        let mut lines = Vec::new();
        while body.next(&mut lines).await? {
            let mut at = 0;
            while let Some(len) = newline(lines.get(at..).unwrap_or_default()) {
                let line = lines.get(at..at + len).unwrap_or_default();
                at += len + 1;
                if !line.trim_ascii().is_empty() {
                    handle_line(line, pace, tell)?;
                }
            }
            lines.drain(..at);
            if lines.len() > LONGEST_LINE {
                return Err(KubeError::broken("a line of a watch is over 5 MiB"));
            }
        }
        match lines.trim_ascii().is_empty() {
            true => Ok(()),
            false => Err(KubeError::broken("a watch ends in the middle of a line")),
        }
    }
}

fn newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

fn handle_line<T: KubeObject>(
    line: &[u8],
    pace: &mut TurnPolicy,
    tell: &mut impl FnMut(Told<T>),
) -> Result<(), KubeError> {
    let event = match read_event::<T>(line) {
        Ok(Some(event)) => event,
        Ok(None) => return Ok(()),
        // An object that cannot be read costs no other.
        Err(error) => match read_event::<MetaOnly>(line)? {
            Some(WatchEvent::Changed(object) | WatchEvent::Deleted(object)) => {
                pace.told(object.metadata.resource_version.clone())?;
                tell(Told::Unreadable(object.metadata, error.to_string()));
                return Ok(());
            }
            _ => return Err(error),
        },
    };
    match event {
        WatchEvent::Changed(object) => {
            pace.told(object.meta().resource_version.clone())?;
            tell(Told::Changed(object));
        }
        WatchEvent::Deleted(object) => {
            pace.told(object.meta().resource_version.clone())?;
            tell(Told::Deleted(object));
        }
        WatchEvent::Bookmark(version) => pace.told(version)?,
        WatchEvent::Failed(refusal) => return Err(KubeError::Refused(refusal)),
    }
    Ok(())
}

/// An object of a list, or that it cannot be read; `None`: not even its name can.
fn readable<T: KubeObject>(item: &[u8], then: impl Fn(T) -> Told<T>) -> Option<Told<T>> {
    match serde_json::from_slice(item) {
        Ok(object) => Some(then(object)),
        Err(error) => {
            let named: MetaOnly = serde_json::from_slice(item).ok()?;
            Some(Told::Unreadable(named.metadata, error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_one_value_of_a_query() {
        let client = Arc::new(KubeClient::new(super::super::KubeSource::InCluster));
        let selector = Some("kubevirt.io/nodeName=a&b".into());
        let reflector = Reflector::new(client, "/apis/x".into(), selector);
        assert_eq!(
            reflector.target("limit=5"),
            "/apis/x?limit=5&labelSelector=kubevirt.io%2FnodeName%3Da%26b"
        );
    }
}
