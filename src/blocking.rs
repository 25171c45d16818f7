//! Where work that blocks runs.
//!
//! Glue never calls `spawn_blocking` itself: it is given a [`Blocking`], so that a test can run the same
//! glue on one thread, in virtual time.

use tokio::task::{JoinError, JoinHandle};

/// How work that blocks is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On the runtime's threads for it: the caller's thread goes on meanwhile.
    Threads,
    /// On the caller's thread, as a task of its own: for runtimes in virtual time, which stands still
    /// meanwhile.
    Inline,
}

impl Blocking {
    /// Runs `work` and gives what it returned. It runs to its end, also when the caller is dropped.
    ///
    /// # Errors
    /// `work` panicked.
    pub async fn run<T, F>(self, work: F) -> Result<T, JoinError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.spawn(work).await
    }

    /// Starts `work`. It runs to its end, also when the handle is dropped.
    pub fn spawn<T, F>(self, work: F) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work),
            Self::Inline => tokio::spawn(async move { work() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_an_error_of_its_caller_wherever_it_runs() {
        for blocking in [Blocking::Threads, Blocking::Inline] {
            assert_eq!(blocking.run(|| 1).await.unwrap(), 1);
            let error = blocking.run(|| unreachable!("a fault")).await.map(drop);
            assert!(error.unwrap_err().to_string().contains("a fault"));
        }
    }
}
