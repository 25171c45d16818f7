//! Answers that take long enough to hold up the loop: made on other threads, a few at a time.

use super::answer;
use super::health::WebHealth;
use crate::blocking::Blocking;
use crate::listen::HttpResponse;
use http::StatusCode;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Makes answers beside the loop.
pub(crate) struct Beside {
    blocking: Blocking,
    permits: Arc<Semaphore>,
    health: Arc<WebHealth>,
}

impl Beside {
    /// At most `most` at a time.
    pub(crate) fn new(blocking: Blocking, most: usize, health: Arc<WebHealth>) -> Self {
        Self {
            blocking,
            permits: Arc::new(Semaphore::new(most)),
            health,
        }
    }

    /// The response that `make` gives.
    pub(crate) async fn run(
        &self,
        make: impl FnOnce() -> HttpResponse + Send + 'static,
    ) -> HttpResponse {
        self.read(make).await.unwrap_or_else(|| {
            answer::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a fault of afferent; its log says more",
            )
        })
    }

    /// What `read` gives; `None`: it panicked. It runs to its end, also when nobody waits for it any more.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = self.permits.clone().acquire_owned().await;
        let read = self.blocking.run(move || {
            let _permit = permit;
            read()
        });
        let read = read.await;
        read.inspect_err(|fault| self.health.failed(fault)).ok()
    }

    /// What bounds how many run at a time.
    #[cfg(test)]
    pub(crate) fn permits(&self) -> Arc<Semaphore> {
        self.permits.clone()
    }
}
