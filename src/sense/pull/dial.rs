//! Connecting to guests.

use super::failure::Failure;
use crate::kube::{KubeError, Seat, VsockDialer, VsockTarget};
use crate::transport::{self, ClientTls, DialAddress, Stream};
use std::pin::Pin;
use std::time::Duration;

/// Longest time until there is a connection.
pub(super) const DIAL: Duration = Duration::from_secs(5);

/// The same through the API of a cluster: a connection to it, and then its answer.
const DIAL_THROUGH_API: Duration = Duration::from_secs(15);

/// A connection that is being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<Stream, Failure>> + Send + 'a>>;

/// The right to an exchange, where they are counted; waited for.
pub type Admission<'a> = Pin<Box<dyn Future<Output = Option<Seat>> + Send + 'a>>;

/// Connects to guests.
pub trait Dial: Send + Sync {
    /// Connects to `address`. It may take for ever: the caller sets the deadline.
    fn dial<'a>(&'a self, address: &'a DialAddress) -> Dialing<'a>;

    /// Waits until an exchange with `address` may begin. It is one of few until the seat is dropped.
    fn admit<'a>(&'a self, _address: &'a DialAddress) -> Admission<'a> {
        Box::pin(std::future::ready(None))
    }

    /// Longest time that [`Dial::dial`] may take.
    fn dial_deadline(&self, address: &DialAddress) -> Duration {
        match address {
            DialAddress::Kubevirt { .. } => DIAL_THROUGH_API,
            _ => DIAL,
        }
    }

    /// The guest began to answer.
    fn answered(&self, _address: &DialAddress) {}

    /// The exchange failed this way. Whether to dial again at once, because now it is done another way.
    fn tries_otherwise(&self, _address: &DialAddress, _failure: &Failure) -> bool {
        false
    }

    /// What a failure means on this way.
    fn explain(&self, _address: &DialAddress, failure: Failure) -> Failure {
        failure
    }

    /// Whether connections are under TLS.
    fn has_tls(&self) -> bool;

    /// Whether the certificate of a guest has to name the guest that answers.
    fn demands_guest_name(&self) -> bool {
        false
    }
}

/// Connects over VSOCK and unix sockets, and through the API of a cluster.
pub struct Dialer {
    /// Mutual TLS, where guests ask for it.
    pub tls: Option<ClientTls>,
    /// For addresses in a cluster.
    pub kube: Option<VsockDialer>,
}

impl Dialer {
    /// The machine of an address in a cluster, and who dials it.
    fn target<'a>(
        &'a self,
        address: &'a DialAddress,
    ) -> Option<(&'a VsockDialer, VsockTarget<'a>)> {
        let (namespace, name, port) = address.kubevirt()?;
        let target = VsockTarget {
            namespace,
            name,
            port,
        };
        Some((self.kube.as_ref()?, target))
    }

    /// Connects, without TLS of this sensor's own.
    async fn connect(&self, address: &DialAddress) -> Result<Stream, Failure> {
        match self.target(address) {
            Some((kube, target)) => {
                let websocket = kube.dial(target).await;
                let websocket = websocket.map_err(|error| of_api(&error))?;
                Ok(Stream::Carried(Box::new(websocket)))
            }
            None => {
                let stream = transport::dial(address).await;
                stream.map_err(|error| Failure::from_dial(address, &error))
            }
        }
    }
}

impl Dial for Dialer {
    fn dial<'a>(&'a self, address: &'a DialAddress) -> Dialing<'a> {
        Box::pin(async move {
            let stream = self.connect(address).await?;
            // Through an API server it is virt-handler that speaks TLS to the agent.
            let tls = self.tls.as_ref().filter(|_| address.can_hold_waits());
            match tls {
                Some(tls) => {
                    let connected = tls.connect(stream).await;
                    connected.map_err(|error| Failure::Handshake(error.to_string().as_str().into()))
                }
                None => Ok(stream),
            }
        })
    }

    fn admit<'a>(&'a self, address: &'a DialAddress) -> Admission<'a> {
        Box::pin(async move {
            let (kube, _) = self.target(address)?;
            Some(kube.seat().await)
        })
    }

    fn answered(&self, address: &DialAddress) {
        if let Some((kube, target)) = self.target(address) {
            kube.answered(target);
        }
    }

    fn tries_otherwise(&self, address: &DialAddress, failure: &Failure) -> bool {
        let is_empty = matches!(failure, Failure::ClosedEarly | Failure::Handshake(_));
        let target = self.target(address).filter(|_| is_empty);
        target.is_some_and(|(kube, target)| kube.ended_empty(target))
    }

    fn explain(&self, address: &DialAddress, failure: Failure) -> Failure {
        match failure {
            Failure::ClosedEarly if address.kubevirt().is_some() => Failure::Unreachable(
                "the connection ended without a byte: no agent on the port, the wrong --kube-tls, \
                 or the agent refused KubeVirt's certificate, which its own log says"
                    .into(),
            ),
            Failure::Handshake(_) if address.kubevirt().is_some() => {
                Failure::Handshake("the agent wants TLS: set --kube-tls true or auto".into())
            }
            failure => failure,
        }
    }

    fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    fn demands_guest_name(&self) -> bool {
        self.tls.as_ref().is_some_and(ClientTls::demands_guest_name)
    }
}

/// What an answer of the API server means for a guest.
fn of_api(error: &KubeError) -> Failure {
    let said = error.to_string();
    match error.refusal() {
        // It is there, and has too much to do, or virt-api is not up.
        Some(refusal) if matches!(refusal.code, 429 | 503 | 504) => Failure::NoRoom(said),
        _ if matches!(error, KubeError::Timeout(_)) => Failure::DialTimeout,
        _ => Failure::Unreachable(said.as_str().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::{KubeClient, KubeSource, TlsChoice};
    use std::sync::Arc;

    /// Loss prevented: an operator who looks for one of three reasons only.
    #[test]
    fn an_end_without_a_byte_names_all_three_reasons_and_is_tried_once_the_other_way() {
        let client = Arc::new(KubeClient::new(KubeSource::InCluster));
        let dialer = Dialer {
            tls: None,
            kube: Some(VsockDialer::new(client, TlsChoice::Auto)),
        };
        let address: DialAddress = "kubevirt:ns/a".parse().unwrap();
        assert!(dialer.tries_otherwise(&address, &Failure::ClosedEarly));
        assert!(!dialer.tries_otherwise(&address, &Failure::ClosedEarly));
        let said = dialer.explain(&address, Failure::ClosedEarly).to_string();
        for reason in [
            "no agent on the port",
            "--kube-tls",
            "refused KubeVirt's certificate",
        ] {
            assert!(said.contains(reason), "{said}");
        }
        let vsock: DialAddress = "vsock:3:818".parse().unwrap();
        assert!(!dialer.tries_otherwise(&vsock, &Failure::ClosedEarly));
        assert_eq!(
            dialer.explain(&vsock, Failure::ClosedEarly),
            Failure::ClosedEarly
        );
    }
}
