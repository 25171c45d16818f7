//! Where an agent listens, and how peers prove there who they are.
//!
//! Every address has a mode of its own, so that one agent answers KubeVirt's `virt-handler` under TLS and a
//! sensor on the same host without.

use super::error::ServeError;
use crate::report::GuestId;
use crate::transport::{
    KubevirtOptions, KubevirtTls, ListenAddress, Refused, ServerTls, Stream, TlsFiles,
};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How peers of an address prove who they are, beside what the kernel says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// They do not.
    Off,
    /// By mutual TLS with certificates from files.
    Files,
    /// By mutual TLS with KubeVirt's authorities, as the host names them at the time.
    Kubevirt,
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "files" => Ok(Self::Files),
            "kubevirt" => Ok(Self::Kubevirt),
            _ => Err(format!("{text:?} is none of off, files and kubevirt")),
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Files => "files",
            Self::Kubevirt => "kubevirt",
        })
    }
}

/// An address and its mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: ListenAddress,
    /// How peers prove who they are.
    pub tls: TlsMode,
}

/// What the modes need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Needed by [`TlsMode::Files`].
    pub files: Option<TlsFiles>,
    /// Whether the certificate in these files must be made out to the guest's id.
    pub name_from_id: bool,
    /// For [`TlsMode::Kubevirt`].
    pub kubevirt: KubevirtOptions,
}

/// Shakes hands with peers in one of the modes.
pub(super) enum Acceptor {
    Plain,
    Files(Box<ServerTls>),
    Kubevirt(Box<KubevirtTls>),
}

impl Acceptor {
    /// The stream to a peer that is let in. It may take for ever: the caller sets the deadline.
    pub(super) async fn accept(&self, stream: Stream) -> Result<Stream, Refused> {
        match self {
            Self::Plain => Ok(stream),
            Self::Files(tls) => tls.accept(stream).await,
            Self::Kubevirt(tls) => tls.accept(stream).await,
        }
    }
}

/// The acceptors that are needed, each made once and used by all addresses of its mode.
#[derive(Default)]
pub(super) struct Acceptors {
    files: Option<Arc<Acceptor>>,
    kubevirt: Option<Arc<Acceptor>>,
}

impl Acceptors {
    /// The acceptor for addresses of this mode.
    pub(super) fn of(
        &mut self,
        mode: TlsMode,
        config: &TlsConfig,
        guest_id: Option<&GuestId>,
    ) -> Result<Arc<Acceptor>, ServeError> {
        let made = match mode {
            TlsMode::Off => return Ok(Arc::new(Acceptor::Plain)),
            TlsMode::Files => &mut self.files,
            TlsMode::Kubevirt => &mut self.kubevirt,
        };
        if let Some(made) = made {
            return Ok(Arc::clone(made));
        }
        let acceptor = match mode {
            TlsMode::Kubevirt => {
                let tls = KubevirtTls::new(config.kubevirt.clone())?;
                Acceptor::Kubevirt(Box::new(tls))
            }
            TlsMode::Off | TlsMode::Files => {
                let guest = match (config.name_from_id, guest_id) {
                    (true, None) => return Err(ServeError::NoGuestId),
                    (true, Some(id)) => Some(id.as_str()),
                    (false, _) => None,
                };
                let files = config.files.clone().ok_or(ServeError::NoTlsFiles)?;
                Acceptor::Files(Box::new(ServerTls::load(files, guest)?))
            }
        };
        Ok(Arc::clone(made.insert(Arc::new(acceptor))))
    }

    /// Why KubeVirt's authorities are not known as they are now, if they are asked for.
    pub(super) fn client_ca_trouble(&self) -> Option<String> {
        match self.kubevirt.as_deref()? {
            Acceptor::Kubevirt(tls) => tls.trouble(),
            Acceptor::Plain | Acceptor::Files(_) => None,
        }
    }
}
