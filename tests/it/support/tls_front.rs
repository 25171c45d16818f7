//! TLS before a server of the tests that speaks none: what arrives encrypted goes on in the clear.

use super::authority::Authority;
use rcgen::{CertificateParams, SanType};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Listens until the test ends.
pub struct TlsFront {
    /// `https://` and where it listens.
    pub url: String,
}

impl TlsFront {
    /// Before the server at `http`, with a certificate of `authority` for 127.0.0.1.
    pub fn start(authority: &Authority, http: &str) -> Self {
        let mut leaf = CertificateParams::new([]).unwrap();
        leaf.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        let dir = tempfile::tempdir().unwrap();
        authority.issue(dir.path(), &leaf);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(dir.path().join("cert.pem")).unwrap()],
                PrivateKeyDer::from_pem_file(dir.path().join("key.pem")).unwrap(),
            )
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let behind = http.trim_start_matches("http://").to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(forward(
                listener,
                TlsAcceptor::from(Arc::new(config)),
                behind,
            ));
        });
        Self { url }
    }
}

async fn forward(listener: std::net::TcpListener, acceptor: TlsAcceptor, behind: String) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, behind) = (acceptor.clone(), behind.clone());
        tokio::spawn(async move {
            // A client that does not trust the certificate ends here.
            let mut tls = acceptor.accept(stream).await?;
            let mut plain = TcpStream::connect(behind).await?;
            copy_bidirectional(&mut tls, &mut plain).await
        });
    }
}
