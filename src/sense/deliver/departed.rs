//! Guests that left the roster: sinks that keep something of each guest may remove it.

use super::sink::Sink;
use crate::clock;
use crate::sense::roster::KnownGuests;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// After this time they look again: what was pending of a guest is delivered after it left, and a directory may
/// have been away.
const AGAIN: Duration = Duration::from_secs(60);

/// Has sinks remove what they keep of guests that left, also of those that left while the sensor was down. Never
/// ends.
pub async fn follow(sinks: Vec<Arc<dyn Sink>>, mut roster: watch::Receiver<KnownGuests>) {
    let mut said = String::new();
    loop {
        let is_complete = roster.borrow_and_update().is_complete;
        for sink in sinks.iter().filter(|_| is_complete) {
            let removed = sink.remove_departed(roster.clone()).await;
            let error = removed.err().map(|error| error.to_string());
            let error = error.unwrap_or_default();
            if !error.is_empty() && error != said {
                tracing::warn!(error, "what is kept of guests that left is not removed yet");
            }
            said = error;
        }
        let again = clock::now() + AGAIN;
        tokio::select! {
            Ok(()) = roster.changed() => {}
            () = clock::sleep_until(Some(again)) => {}
        }
    }
}
