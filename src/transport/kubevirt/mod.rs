//! TLS as KubeVirt does it: `virt-handler` connects to a guest with a certificate of KubeVirt's own authority.
//!
//! ```text
//! ClientHello ──► CABundle of the host, at every handshake ──► client certificate: chain, usage, common name
//!                        │ fails
//!                        └─► the bundle fetched before
//! ```
//!
//! KubeVirt replaces its authority while guests run, sometimes with an overlap and sometimes not, so nothing but
//! the bundle of this moment says who may ask. A bundle that cannot be fetched leaves the one before in use.
//! The agent's own certificate is made at start and signed by itself: `virt-handler` does not verify it, the
//! hypervisor has already connected the two.

mod ca_bundle;

use super::certificate_names::{CommonName, NamedClients};
use super::handshake::{Reason, Refused};
use super::tls::provider;
use super::{DialAddress, SERVER_NAME, Stream};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

/// Where the authorities come from, and whom they have to have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubevirtOptions {
    /// The CABundle service.
    pub ca_source: DialAddress,
    /// Longest that a fetch of the bundle takes.
    pub ca_timeout: Duration,
    /// Common name of the clients that are let in.
    pub client_name: CommonName,
}

/// The accepting end.
pub struct KubevirtTls {
    options: KubevirtOptions,
    /// Made once; a certificate of its own at every start.
    identity: Arc<CertifiedKey>,
    /// Handshakes that asked for the bundle so far.
    asked: AtomicU64,
    /// Held during a fetch, so that there is one at a time.
    bundle: tokio::sync::Mutex<Bundle>,
    /// Why the last fetch failed, if it did.
    trouble: Mutex<Option<String>>,
}

/// The authorities fetched last.
#[derive(Default)]
struct Bundle {
    pem: Vec<u8>,
    config: Option<Arc<ServerConfig>>,
    /// Handshakes below this number asked before the last good fetch began: its bundle is new enough for them.
    good_for: u64,
    /// Handshakes below this number asked before the last failed fetch ended: another would fail like it.
    failed_for: u64,
}

impl KubevirtTls {
    /// Makes a key and a certificate.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(options: KubevirtOptions) -> io::Result<Self> {
        Ok(Self {
            options,
            identity: Arc::new(self_signed(&provider()).map_err(io::Error::other)?),
            asked: AtomicU64::new(0),
            bundle: tokio::sync::Mutex::default(),
            trouble: Mutex::new(None),
        })
    }

    /// Shakes hands with a peer that connected. The caller sets the deadline.
    ///
    /// # Errors
    /// The peer is not let in; says why.
    pub async fn accept(&self, stream: Stream) -> Result<Stream, Refused> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream)
            .await
            .map_err(|error| Refused::from(&error))?;
        // Only for peers that speak TLS. It has a large state, which silent peers need not hold.
        let config = Box::pin(self.config()).await?;
        let stream = hello
            .into_stream(config)
            .await
            .map_err(|error| Refused::from(&error))?;
        Ok(Stream::Tls(Box::new(TlsStream::Server(stream))))
    }

    /// Why the last fetch of the authorities failed, if it did.
    pub fn trouble(&self) -> Option<String> {
        self.lock_trouble().clone()
    }

    /// The configuration with the authorities of this moment, or of the last fetch that went well. Handshakes
    /// that ask while a fetch runs share the next one: they are served by a bundle that was fetched after they
    /// asked, and a source that hangs is waited for once.
    async fn config(&self) -> Result<Arc<ServerConfig>, Refused> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut bundle = self.bundle.lock().await;
        if number >= bundle.good_for && number >= bundle.failed_for {
            let began = self.asked.load(Ordering::Relaxed);
            match self.fetch(&mut bundle).await {
                Ok(()) => bundle.good_for = began,
                Err(error) => {
                    bundle.failed_for = self.asked.load(Ordering::Relaxed);
                    self.tell_failure(error, bundle.config.is_some());
                }
            }
        }
        bundle.config.clone().ok_or_else(|| {
            let source = &self.options.ca_source;
            let why = self.trouble().unwrap_or_default();
            Refused::new(
                Reason::NoClientCa,
                format!("the client CA was never fetched from {source}: {why}"),
            )
        })
    }

    async fn fetch(&self, bundle: &mut Bundle) -> Result<(), String> {
        let KubevirtOptions {
            ca_source,
            ca_timeout,
            client_name,
        } = &self.options;
        let fetched = timeout(*ca_timeout, ca_bundle::fetch(ca_source)).await;
        let pem = fetched
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", ca_timeout.as_millis())))?;
        if pem != bundle.pem || bundle.config.is_none() {
            let roots = roots(&pem)?;
            tracing::info!(
                source = %ca_source,
                authorities = roots.len(),
                "client CA bundle {}",
                if bundle.config.is_some() { "changed" } else { "fetched" }
            );
            let config = server_config(roots, client_name, &self.identity)?;
            (bundle.pem, bundle.config) = (pem, Some(Arc::new(config)));
        }
        if self.lock_trouble().take().is_some() {
            tracing::info!(source = %ca_source, "the client CA can be fetched again");
        }
        Ok(())
    }

    fn tell_failure(&self, error: String, has_old: bool) {
        let mut trouble = self.lock_trouble();
        if trouble.as_ref() != Some(&error) {
            let source = &self.options.ca_source;
            match has_old {
                true => {
                    tracing::warn!(%source, error, "the client CA cannot be fetched; the one before stays in use");
                }
                false => {
                    tracing::warn!(%source, error, "the client CA cannot be fetched; no peer is let in");
                }
            }
        }
        *trouble = Some(error);
    }

    fn lock_trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| format!("the bundle is no PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(certificates);
    match (added, ignored) {
        (0, 0) => Err("the bundle has no certificate in it".into()),
        (0, _) => Err("the bundle has no certificate in it that can be used".into()),
        (_, 0) => Ok(roots),
        (_, ignored) => {
            tracing::warn!(
                ignored,
                "certificates of the client CA bundle cannot be used"
            );
            Ok(roots)
        }
    }
}

fn server_config(
    roots: RootCertStore,
    name: &CommonName,
    identity: &Arc<CertifiedKey>,
) -> Result<ServerConfig, String> {
    // Without a list of names a client shows whatever certificate it has, and what is wrong with it can be told.
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| error.to_string())?;
    let clients = Arc::new(NamedClients {
        chain,
        name: name.clone(),
    });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity))));
    // A session that is taken up again shows no certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn self_signed(provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let made = rcgen::KeyPair::generate().and_then(|key| {
        let mut params = rcgen::CertificateParams::new([SERVER_NAME.to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, SERVER_NAME);
        Ok((params.self_signed(&key)?, key))
    });
    let (certificate, key) = made.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::from_der(vec![certificate.der().clone()], key, provider)
        .map_err(|error| error.to_string())
}
