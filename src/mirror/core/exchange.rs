//! One exchange with Core's server, and the wait before the next one: all that reading Core does to the
//! outside, behind a trait, so that a simulation can answer in virtual time.

use crate::http::{Client, HttpError, HttpResponse};
use std::time::Duration;

/// Carries questions to Core and waits between them.
pub trait Exchange: Send {
    /// The answer of `url` before `within` has passed; no redirect to another host is followed.
    ///
    /// # Errors
    /// There was no whole answer.
    fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        within: Duration,
    ) -> Result<HttpResponse, HttpError>;

    /// Lets this time pass. In virtual time it moves the clock that [`crate::clock::now`] reads.
    fn pause(&self, time: Duration);
}

/// Over the network, on the thread of the cycle.
impl Exchange for Client {
    fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        within: Duration,
    ) -> Result<HttpResponse, HttpError> {
        self.get_within(url, headers, within)
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
