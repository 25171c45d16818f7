//! How the listener of an API is, for `status`.

use super::WebName;
use serde_json::{Value, json};
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// What went wrong last, until it goes right, and what is counted.
#[derive(Debug)]
pub(crate) struct WebHealth {
    name: WebName,
    error: Mutex<Option<String>>,
    token_error: Mutex<Option<String>>,
    faults: AtomicU64,
    requests: AtomicU64,
    denied: AtomicU64,
}

impl WebHealth {
    /// Of a listener on which nothing happened yet.
    pub(crate) fn of(name: WebName) -> Self {
        Self {
            name,
            error: Mutex::default(),
            token_error: Mutex::default(),
            faults: AtomicU64::default(),
            requests: AtomicU64::default(),
            denied: AtomicU64::default(),
        }
    }

    /// The listener cannot do its work.
    pub(crate) fn failed(&self, error: &impl Display) {
        self.faults.fetch_add(1, Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }

    /// The listener does its work.
    pub(super) fn works(&self) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether programs can show the token.
    pub(super) fn token(&self, error: Option<String>) {
        *self
            .token_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// A request came.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// A request had no access.
    pub(super) fn denied(&self) {
        self.denied.fetch_add(1, Relaxed);
    }

    /// Why the listener does not do all of its work.
    pub(crate) fn trouble(&self) -> Vec<String> {
        let held = [&self.error, &self.token_error];
        let errors = held.map(|held| held.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let errors = errors.into_iter().flatten();
        errors
            .map(|error| format!("{} API: {error}", self.name.command))
            .collect()
    }

    /// What `status` shows.
    pub(crate) fn json(&self) -> Value {
        json!({
            "requests": self.requests.load(Relaxed),
            "denied": self.denied.load(Relaxed),
            "faults": self.faults.load(Relaxed),
        })
    }
}
