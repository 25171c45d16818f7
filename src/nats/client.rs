//! Requests to whichever server of a cluster answers, over connections that are kept.

use super::connection::{Connection, Tls};
use super::credentials::Credentials;
use super::socket::tls_config;
use super::{Address, Message, NatsError};
use crate::clock;
use rustls::ClientConfig;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Limits, secrets and trust of a [`Client`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest time until one server has let us in.
    pub connect: Duration,
    /// Longest time of all that [`Client::request`] is asked with one `until`.
    pub deadline: Duration,
    /// File with a token, a password, a seed or credentials.
    pub secret_file: Option<PathBuf>,
    /// PEM file with the only roots to trust, which makes TLS a must; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Asks; may be used by many threads at once, each with a connection to itself.
pub struct Client {
    address: Address,
    options: Options,
    /// Read when a server first wants TLS, because reading all roots takes time.
    tls: Mutex<Option<Arc<ClientConfig>>>,
    /// The last one used at the end. At most as many as there were requests at the same time.
    idle: Mutex<Vec<Connection>>,
    /// Which server let us in the last time.
    server: AtomicUsize,
}

impl Client {
    /// Connects at the first request.
    pub fn new(address: Address, options: Options) -> Self {
        Self {
            address,
            options,
            tls: Mutex::default(),
            idle: Mutex::default(),
            server: AtomicUsize::new(0),
        }
    }

    /// Publishes `message`, and gives what answers it before `until`.
    pub fn request(&self, message: &Message<'_>, until: Instant) -> Result<Vec<u8>, NatsError> {
        let connection = match self.idle() {
            Some(connection) => connection,
            None => self.connect(until)?,
        };
        match self.ask(connection, message, until) {
            // A new connection tells whether the server has gone, or this request breaks them.
            Err(NatsError::Broken(_)) => self.ask(self.connect(until)?, message, until),
            result => result,
        }
    }

    fn ask(
        &self,
        mut connection: Connection,
        message: &Message<'_>,
        until: Instant,
    ) -> Result<Vec<u8>, NatsError> {
        let result = connection.request(message, until);
        let is_whole = match &result {
            Ok(_) | Err(NatsError::NoResponders(_) | NatsError::TooLong { .. }) => true,
            Err(_) => false,
        };
        if is_whole {
            let (mut idle, now) = (held(&self.idle), clock::now());
            idle.retain(|connection| !connection.is_old(now));
            idle.push(connection);
        }
        result
    }

    fn idle(&self) -> Option<Connection> {
        let now = clock::now();
        loop {
            let mut connection = held(&self.idle).pop()?;
            if connection.is_fresh(now) {
                return Some(connection);
            }
        }
    }

    /// Asks one server after the other to let us in, first the one that did the last time.
    fn connect(&self, until: Instant) -> Result<Connection, NatsError> {
        let user = self.address.user.as_deref();
        let credentials = Credentials::load(self.options.secret_file.as_deref(), user)?;
        let tls = Tls {
            required: self.address.tls || self.options.ca_file.is_some(),
            config: &|| self.tls_config(),
        };
        let (first, mut said) = (self.server.load(Relaxed), Vec::new());
        let hosts = self.address.hosts.iter().enumerate();
        for (n, host) in hosts.cycle().skip(first).take(self.address.hosts.len()) {
            let until = until.min(clock::now() + self.options.connect);
            let limit = self.options.connect;
            match Connection::open(host, &tls, &credentials, until, limit) {
                Ok(connection) => {
                    self.server.store(n, Relaxed);
                    return Ok(connection);
                }
                Err(NatsError::NoConnection(error)) => said.push(error),
                Err(error) => return Err(error),
            }
        }
        Err(NatsError::NoConnection(said.join("; ")))
    }

    fn tls_config(&self) -> Result<Arc<ClientConfig>, NatsError> {
        let mut tls = held(&self.tls);
        if let Some(config) = tls.as_ref() {
            return Ok(config.clone());
        }
        let config = tls_config(self.options.ca_file.as_deref()).map_err(NatsError::Denied)?;
        Ok(tls.insert(config).clone())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
