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

    /// The response that `make` gives; it is made to its end, also when nobody waits for it any more.
    pub(crate) async fn run(
        &self,
        make: impl FnOnce() -> HttpResponse + Send + 'static,
    ) -> HttpResponse {
        let permit = self.permits.clone().acquire_owned().await;
        let made = self.blocking.run(move || {
            let _permit = permit;
            make()
        });
        made.await.unwrap_or_else(|fault| {
            self.health.failed(&fault);
            answer::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a fault of afferent; its log says more",
            )
        })
    }
}
