//! Whose certificate is accepted: verifiers that demand a name beside a chain.
//!
//! Both leave the chain, its times and all signatures to webpki, and look at a name only after that.

use super::certificate::Holder;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What follows a guest's id in the DNS name of its certificate.
const GUEST_DOMAIN: &str = ".afferent";

/// The DNS name in the certificate of a guest with this id.
pub fn guest_name(id: &str) -> String {
    format!("{id}{GUEST_DOMAIN}")
}

/// The guest that one of these DNS names is made out to.
pub(super) fn guest_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_id = |id: &&str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let mut ids = names
        .into_iter()
        .filter_map(|name| name.strip_suffix(GUEST_DOMAIN))
        .filter(is_id);
    // A certificate for two guests proves neither.
    ids.next().filter(|_| ids.next().is_none())
}

/// The common name that a client's certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommonName {
    /// This one.
    Exactly(String),
    /// Any that begins so.
    Prefix(String),
}

impl CommonName {
    fn accepts(&self, name: &str) -> bool {
        match self {
            Self::Exactly(wanted) => name == wanted,
            Self::Prefix(wanted) => name.starts_with(wanted),
        }
    }
}

impl FromStr for CommonName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('*') {
            _ if text.is_empty() => Err("an empty name".into()),
            Some("") => {
                Err("would let in whatever the authority signed; name a prefix before the *".into())
            }
            Some(prefix) => Ok(Self::Prefix(prefix.into())),
            None => Ok(Self::Exactly(text.into())),
        }
    }
}

impl fmt::Display for CommonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Why a certificate with a good chain is not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAccepted {
    #[error("the peer's certificate has no extended key usage for clients")]
    NotForClients,
    #[error("the peer's certificate has the common name {found:?}, and {wanted:?} is wanted")]
    OtherName { found: String, wanted: String },
    #[error("the certificate names no guest (one DNS name GUEST_ID{GUEST_DOMAIN})")]
    NoGuest,
}

impl NotAccepted {
    fn error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}

/// Accepts clients of certain authorities whose certificate is for clients and has a certain common name.
#[derive(Debug)]
pub(super) struct NamedClients {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) name: CommonName,
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        let holder = Holder::read(end_entity)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        // webpki takes a certificate without the extension for one that is for everything.
        if !holder.is_client {
            return Err(NotAccepted::NotForClients.error());
        }
        match holder.common_names.as_slice() {
            [name] if self.name.accepts(name) => Ok(verified),
            names => Err(NotAccepted::OtherName {
                found: names.join(", "),
                wanted: self.name.to_string(),
            }
            .error()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Accepts servers whose certificate is made out to one guest, whichever that is. Who asked compares it with
/// what the guest says of itself.
#[derive(Debug)]
pub(super) struct AnyGuest(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyGuest {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let holder = Holder::read(end_entity)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let guest = guest_of(holder.dns_names.iter().copied())
            .ok_or_else(|| NotAccepted::NoGuest.error())?;
        let name = ServerName::try_from(guest_name(guest))
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        self.0
            .verify_server_cert(end_entity, intermediates, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_is_exact_or_a_prefix() {
        let exactly: CommonName = "kubevirt.io:system:client:vsock".parse().unwrap();
        assert!(exactly.accepts("kubevirt.io:system:client:vsock"));
        assert!(!exactly.accepts("kubevirt.io:system:client:vsock2"));
        let prefix: CommonName = "kubevirt.io:system:client:*".parse().unwrap();
        assert!(prefix.accepts("kubevirt.io:system:client:migration"));
        assert!(!prefix.accepts("kubevirt.io:system:node"));
        for text in ["", "*"] {
            assert!(text.parse::<CommonName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_certificate_is_made_out_to_one_guest_or_to_none() {
        let (id, other) = ("0123456789abcdef".repeat(2), "f".repeat(32));
        let (name, other) = (guest_name(&id), guest_name(&other));
        assert_eq!(guest_of(["afferent", &name]), Some(id.as_str()));
        assert_eq!(guest_of([name.as_str(), &other]), None);
        assert_eq!(guest_of(["afferent", "g.afferent"]), None);
    }
}
