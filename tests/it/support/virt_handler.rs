//! A client like KubeVirt's virt-handler: TLS 1.3, a certificate of its authority, no server name, no look at the
//! server's certificate.

use super::agent::{Answer, receive, send};
use super::authority::Authority;
use afferent::wire::message::{GetReport, request};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A certificate and its key.
pub struct Identity(CertificateDer<'static>, Vec<u8>);

/// What KubeVirt's own client has.
pub fn client() -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "kubevirt.io:system:client:vsock");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The same with another common name.
pub fn client_named(name: &str) -> CertificateParams {
    let mut params = client();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Identity {
    pub fn of(authority: &Authority, params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        Self(certificate.der().clone(), key.serialize_der())
    }
}

/// Connects as this client, and asks for the report.
pub fn pull(socket: &Path, identity: Option<&Identity>) -> io::Result<Answer> {
    pull_with(socket, identity, &rustls::version::TLS13)
}

/// The same under this version of TLS.
pub fn pull_with(
    socket: &Path,
    identity: Option<&Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> io::Result<Answer> {
    let config = config(identity, version);
    let name = ServerName::try_from("a.name.nobody.looks.at").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut stream = StreamOwned::new(connection, stream);
    send(
        &mut stream,
        request::Method::GetReport(GetReport::default()),
    )?;
    stream.flush()?;
    receive(&mut stream)
}

/// What it speaks TLS with.
pub fn config(
    identity: Option<&Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(Identity(certificate, key)) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone()));
            let chain = vec![certificate.clone()];
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.enable_sni = false;
    config
}

/// Verifies nothing of a server, as virt-handler.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
