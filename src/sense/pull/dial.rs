//! Connecting to guests.

use super::failure::Failure;
use crate::transport::{self, ClientTls, DialAddress, Stream};
use std::pin::Pin;

/// A connection that is being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<Stream, Failure>> + Send + 'a>>;

/// Connects to guests.
pub trait Dial: Send + Sync {
    /// Connects to `address`. It may take for ever: the caller sets the deadline.
    fn dial<'a>(&'a self, address: &'a DialAddress) -> Dialing<'a>;

    /// Whether connections are under TLS.
    fn has_tls(&self) -> bool;

    /// Whether the certificate of a guest has to name the guest that answers.
    fn demands_guest_name(&self) -> bool {
        false
    }
}

/// Connects over VSOCK and unix sockets.
pub struct Dialer {
    /// Mutual TLS, where guests ask for it.
    pub tls: Option<ClientTls>,
}

impl Dial for Dialer {
    fn dial<'a>(&'a self, address: &'a DialAddress) -> Dialing<'a> {
        Box::pin(async move {
            let stream = transport::dial(address).await;
            let stream = stream.map_err(|error| Failure::from_dial(&error))?;
            match &self.tls {
                Some(tls) => {
                    let connected = tls.connect(stream).await;
                    connected.map_err(|error| Failure::Handshake(error.to_string().as_str().into()))
                }
                None => Ok(stream),
            }
        })
    }

    fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    fn demands_guest_name(&self) -> bool {
        self.tls.as_ref().is_some_and(ClientTls::demands_guest_name)
    }
}
