//! TLS of a server for browsers and programs, which show no certificate themselves.
//!
//! Certificate and key are PEM files that are read again when they change. A renewal that does not load
//! changes nothing but the log.

use super::ByteStream;
use super::tls::{Reloading, TlsError, certificates, key, provider, wrong};
use rustls::ServerConfig;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Where a server finds its certificate, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and what leads from it to the authority.
    pub cert: PathBuf,
    /// Its private key, which not everybody may read.
    pub key: PathBuf,
}

/// The end that accepts.
pub struct WebTls(Reloading<TlsAcceptor>);

impl WebTls {
    /// Loads the files.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn load(files: CertificateFiles) -> Result<Self, TlsError> {
        let paths = vec![files.cert.clone(), files.key.clone()];
        let build = move || {
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&files.cert, error))?
                .with_no_client_auth()
                .with_single_cert(certificates(&files.cert)?, key(&files.key)?)
                .map_err(|error| wrong(&files.cert, error))?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(TlsAcceptor::from(Arc::new(config)))
        };
        Reloading::load(paths, Box::new(build)).map(Self)
    }

    /// Shakes hands with a peer that connected. The caller sets the deadline.
    ///
    /// # Errors
    /// The peer does not speak TLS, or not ours.
    pub async fn accept(&self, stream: Box<dyn ByteStream>) -> io::Result<Box<dyn ByteStream>> {
        let stream = self.0.current().accept(stream).await?;
        Ok(Box::new(stream))
    }
}
