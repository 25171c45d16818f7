//! When the mapping of repositories to CPEs is fetched, if it is a URL.

use super::Config;
use super::repo_cpe::{self, FetchOptions, RepoCpeError, Source};
use super::timer::Task;
use crate::blocking::Blocking;
use crate::clock;
use std::path::PathBuf;
use tokio::time::{Instant, sleep_until};

/// Keeps the copy of a mapping that is a URL fresh.
pub(super) struct Mapping {
    url: Option<String>,
    options: FetchOptions,
    state_dir: PathBuf,
    next: Instant,
    failures: u32,
    trouble: Option<String>,
    fetch: Task<Result<bool, RepoCpeError>>,
    blocking: Blocking,
}

impl Mapping {
    pub(super) fn new(config: &Config, blocking: Blocking) -> Self {
        let url = match &config.repo_cpe {
            Source::Url(url) => Some(url.clone()),
            Source::File(_) | Source::Sensor => None,
        };
        Self {
            url,
            options: config.repo_cpe_fetch.clone(),
            state_dir: config.state_dir.clone(),
            next: clock::now().into(),
            failures: 0,
            trouble: None,
            fetch: Task::default(),
            blocking,
        }
    }

    /// Why the last fetch failed, if it did.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Waits until the mapping was fetched or could not be; gives whether it is another one. Safe
    /// to drop and call again.
    pub(super) async fn refreshed(&mut self) -> bool {
        let Some(url) = &self.url else {
            return std::future::pending().await;
        };
        if !self.fetch.is_running() {
            sleep_until(self.next).await;
            let (url, options) = (url.clone(), self.options.clone());
            let state_dir = self.state_dir.clone();
            let fetch = move || repo_cpe::fetch(&url, &options, &state_dir);
            self.fetch.start(self.blocking.spawn(fetch));
        }
        let fetched = self.fetch.joined().await;
        let (wait, is_new) = match fetched {
            Ok(Ok(is_new)) => {
                self.failures = 0;
                self.trouble = None;
                (repo_cpe::REFRESH, is_new)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the mapping of repositories to CPEs stays as it is");
                self.failures = self.failures.saturating_add(1);
                self.trouble = Some(error.to_string());
                (repo_cpe::RETRY.delay(self.failures), false)
            }
            Err(_) => (repo_cpe::REFRESH, false),
        };
        self.next = Instant::from_std(clock::now()) + wait;
        is_new
    }
}
