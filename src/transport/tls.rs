//! Mutual TLS on top of any stream, for hosts on which every local user may dial a guest.
//!
//! Both ends show a certificate, and each verifies the other's chain against a file of CAs. Guests
//! have no DNS names: an agent's certificate is made out to the name [`SERVER_NAME`], which all agents
//! share, or to its guest's id as well, which ties the key to one guest ([`guest_name`]). Files are
//! read again when they change, so that a renewed certificate needs no restart; a renewal that does
//! not load is said in the log, and the one before it stays in use.

use super::Stream;
use super::certificate::Holder;
use super::certificate_names::{AnyGuest, guest_name};
use super::handshake::{Refused, explained};
use crate::file_stamp::FileStamp;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The DNS name in every agent's certificate (`subjectAltName=DNS:afferent`).
pub const SERVER_NAME: &str = "afferent";

/// Where one end finds what it needs, all of it PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate and what leads from it to the CA.
    pub cert: PathBuf,
    /// Its private key, readable by nobody else.
    pub key: PathBuf,
    /// The CAs whose certificates the other end may show.
    pub ca: PathBuf,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct TlsError {
    path: PathBuf,
    what: String,
}

/// The end that accepts.
pub struct ServerTls(Reloading<TlsAcceptor>);

/// The end that dials.
pub struct ClientTls {
    connector: Reloading<TlsConnector>,
    name: AgentName,
}

/// Which name an agent's certificate must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentName {
    /// The one that all agents share, [`SERVER_NAME`].
    #[default]
    Shared,
    /// [`guest_name`] of some guest; whoever dials compares it with the guest that answers.
    GuestId,
}

impl FromStr for AgentName {
    type Err = String;

    /// What `--tls-name-from` takes.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "id" => Ok(Self::GuestId),
            _ => Err(format!("{text:?} is not id")),
        }
    }
}

impl ServerTls {
    /// Loads the files. With the id of a guest, the certificate must be made out to it.
    ///
    /// # Errors
    /// A file cannot be read or used, or the certificate has another name.
    pub fn load(files: TlsFiles, guest: Option<&str>) -> Result<Self, TlsError> {
        let name = guest.map(guest_name);
        let build = move |files: &TlsFiles| {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(files)?), provider())
                    .build()
                    .map_err(|error| wrong(&files.ca, error))?;
            let chain = certificates(&files.cert)?;
            if let Some(name) = &name {
                check_name(files, &chain, name)?;
            }
            let config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&files.cert, error))?
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key(&files.key)?)
                .map_err(|error| wrong(&files.cert, error))?;
            Ok(TlsAcceptor::from(Arc::new(config)))
        };
        Reloading::load(files.paths(), Box::new(move || build(&files))).map(Self)
    }

    /// Shakes hands with a peer that connected. The caller sets the deadline.
    ///
    /// # Errors
    /// The peer is not let in; says why.
    pub async fn accept(&self, stream: Stream) -> Result<Stream, Refused> {
        let accepted = self.0.current().accept(stream).await;
        let stream = accepted.map_err(|error| Refused::from(&error))?;
        Ok(Stream::Tls(Box::new(TlsStream::Server(stream))))
    }
}

impl ClientTls {
    /// Loads the files, for agents with the shared name.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        Self::load_for(files, AgentName::Shared)
    }

    /// Loads the files, for agents with this name.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn load_for(files: TlsFiles, name: AgentName) -> Result<Self, TlsError> {
        let build = move |files: &TlsFiles| {
            let config = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&files.cert, error))?;
            let roots = roots(files)?;
            let config = match name {
                AgentName::Shared => config.with_root_certificates(roots),
                AgentName::GuestId => {
                    let chain =
                        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                            .build()
                            .map_err(|error| wrong(&files.ca, error))?;
                    config
                        .dangerous()
                        .with_custom_certificate_verifier(Arc::new(AnyGuest(chain)))
                }
            };
            let config = config
                .with_client_auth_cert(certificates(&files.cert)?, key(&files.key)?)
                .map_err(|error| wrong(&files.cert, error))?;
            Ok(TlsConnector::from(Arc::new(config)))
        };
        let connector = Reloading::load(files.paths(), Box::new(move || build(&files)))?;
        Ok(Self { connector, name })
    }

    /// Whether agents' certificates name their guests, [`Stream::certified_guest`]: who asks has to compare.
    pub fn demands_guest_name(&self) -> bool {
        self.name == AgentName::GuestId
    }

    /// Shakes hands with an agent that was dialed. The caller sets the deadline.
    pub async fn connect(&self, stream: Stream) -> io::Result<Stream> {
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let connected = self.connector.current().connect(name, stream).await;
        let stream = connected.map_err(explained)?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

type Build<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// Something made from files, made again when they change.
pub(super) struct Reloading<T> {
    /// The certificate is the first.
    files: Vec<PathBuf>,
    build: Build<T>,
    made: Mutex<(Vec<Option<FileStamp>>, T)>,
}

impl<T: Clone> Reloading<T> {
    pub(super) fn load(files: Vec<PathBuf>, build: Build<T>) -> Result<Self, TlsError> {
        let made = Mutex::new((stamps(&files), build()?));
        Ok(Self { files, build, made })
    }

    pub(super) fn current(&self) -> T {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = stamps(&self.files);
        if seen != made.0 {
            // Remembered also when it does not load: said once, not at every connection.
            made.0 = seen;
            match (self.build)() {
                Ok(new) => {
                    let cert = self.files.first().map(|path| path.display());
                    tracing::info!(
                        cert = cert.map(tracing::field::display),
                        "certificates read again"
                    );
                    made.1 = new;
                }
                Err(error) => {
                    tracing::warn!(%error, "changed certificates do not load; the old ones stay in use");
                }
            }
        }
        made.1.clone()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<FileStamp>> {
    files.iter().map(|path| FileStamp::of(path)).collect()
}

impl TlsFiles {
    fn paths(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key, &self.ca].map(Clone::clone).to_vec()
    }
}

pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(&files.ca, error))?;
    }
    Ok(roots)
}

/// Whether the certificate is made out to this guest.
fn check_name(
    files: &TlsFiles,
    chain: &[CertificateDer<'static>],
    name: &str,
) -> Result<(), TlsError> {
    let holder = chain
        .first()
        .and_then(|certificate| Holder::read(certificate));
    let names = holder.map(|holder| holder.dns_names).unwrap_or_default();
    match names.iter().any(|found| found.eq_ignore_ascii_case(name)) {
        true => Ok(()),
        false => Err(wrong(
            &files.cert,
            format!(
                "not made out to this guest: it needs the DNS name {name} (--tls-name-from id)"
            ),
        )),
    }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(path, error))?;
    if certificates.is_empty() {
        return Err(wrong(path, "no certificate in it"));
    }
    Ok(certificates)
}

/// Reads a private key, which not everybody may read.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mode = fs::metadata(path)
        .map_err(|error| wrong(path, error))?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        return Err(wrong(
            path,
            "a private key that everybody may read; chmod o= it",
        ));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(path, error))
}

pub(super) fn wrong(path: &Path, what: impl std::fmt::Display) -> TlsError {
    TlsError {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn two_ends_of_one_authority_talk() {
        let authority = Authority::new();
        let (server, client) = (authority.server(), authority.client());
        let (mut ours, mut theirs) = handshake(&server, &client).await.unwrap();
        ours.write_all(b"hello").await.unwrap();
        ours.flush().await.unwrap();
        let mut heard = [0; 5];
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn a_stranger_is_refused_at_either_end() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        assert!(handshake(&ours.server(), &theirs.client()).await.is_err());
        assert!(handshake(&theirs.server(), &ours.client()).await.is_err());
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_used_without_a_restart() {
        let (old, new) = (Authority::new(), Authority::new());
        let server = old.server();
        for file in ["cert", "key", "ca"] {
            let renewed = fs::read(new.dir.path().join(file)).unwrap();
            fs::write(old.dir.path().join(file), renewed).unwrap();
        }
        handshake(&server, &new.client()).await.unwrap();
        // A renewal that does not load changes nothing.
        fs::write(old.dir.path().join("cert"), "garbage").unwrap();
        handshake(&server, &new.client()).await.unwrap();
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let authority = Authority::new();
        let key = authority.files().key;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = ServerTls::load(authority.files(), None).err().unwrap();
        assert!(error.to_string().contains(&key.display().to_string()));
    }

    /// The loss: a guest that has a certificate of the fleet answers in the name of another one.
    #[tokio::test]
    async fn a_certificate_for_a_guest_names_it_to_the_client() {
        let id = "0123456789abcdef".repeat(2);
        let shared = Authority::new();
        let error = ServerTls::load(shared.files(), Some(&id)).err().unwrap();
        assert!(error.to_string().contains(&guest_name(&id)), "{error}");
        let by_id = |authority: &Authority| {
            ClientTls::load_for(authority.files(), AgentName::GuestId).unwrap()
        };
        let refused = handshake(&shared.server(), &by_id(&shared)).await;
        assert!(refused.unwrap_err().to_string().contains("names no guest"));

        let named = Authority::for_names([SERVER_NAME.to_owned(), guest_name(&id)]);
        let server = ServerTls::load(named.files(), Some(&id)).unwrap();
        let (stream, _) = handshake(&server, &by_id(&named)).await.unwrap();
        assert_eq!(stream.certified_guest(), Some(id.clone()));
        // A sensor that looks for the shared name goes on.
        handshake(&server, &named.client()).await.unwrap();
        let stranger = Authority::for_names([guest_name(&id)]);
        let server = ServerTls::load(stranger.files(), Some(&id)).unwrap();
        assert!(handshake(&server, &by_id(&named)).await.is_err());
    }

    async fn handshake(server: &ServerTls, client: &ClientTls) -> io::Result<(Stream, Stream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (accepted, connected) = tokio::join!(
            async {
                server
                    .accept(Stream::Unix(theirs))
                    .await
                    .map_err(io::Error::other)
            },
            // Under TLS 1.3 a client learns that it was refused when it reads.
            async {
                let mut stream = client.connect(Stream::Unix(ours)).await?;
                stream.flush().await?;
                Ok::<_, io::Error>(stream)
            }
        );
        Ok((connected?, accepted?))
    }

    struct Authority {
        dir: TempDir,
    }

    impl Authority {
        fn new() -> Self {
            Self::for_names([SERVER_NAME.to_owned()])
        }

        fn for_names(names: impl Into<Vec<String>>) -> Self {
            let mut ca = CertificateParams::new([]).unwrap();
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
            let key = KeyPair::generate().unwrap();
            let leaf = CertificateParams::new(names).unwrap();
            let leaf = leaf.signed_by(&key, &ca).unwrap();
            let authority = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            let files = authority.files();
            fs::write(&files.ca, ca.pem()).unwrap();
            fs::write(&files.cert, leaf.pem()).unwrap();
            fs::write(&files.key, key.serialize_pem()).unwrap();
            fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
            authority
        }

        fn files(&self) -> TlsFiles {
            let file = |name| self.dir.path().join(name);
            TlsFiles {
                cert: file("cert"),
                key: file("key"),
                ca: file("ca"),
            }
        }

        fn server(&self) -> ServerTls {
            ServerTls::load(self.files(), None).unwrap()
        }

        fn client(&self) -> ClientTls {
            ClientTls::load(self.files()).unwrap()
        }
    }
}
