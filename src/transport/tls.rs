//! Mutual TLS on top of any stream, for hosts on which every local user may dial a guest.
//!
//! Both ends show a certificate, and each verifies the other's chain against a file of CAs. Guests
//! have no DNS names: an agent's certificate is made out to the name [`SERVER_NAME`]. Files are
//! read again when they change, so that a renewed certificate needs no restart; a renewal that does
//! not load is said in the log, and the one before it stays in use.

use super::Stream;
use crate::file_stamp::FileStamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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
pub struct ClientTls(Reloading<TlsConnector>);

impl ServerTls {
    /// Loads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        Reloading::load(files, |files| {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(files)?), provider())
                    .build()
                    .map_err(|error| wrong(&files.ca, error))?;
            let config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&files.cert, error))?
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain(files)?, key(files)?)
                .map_err(|error| wrong(&files.cert, error))?;
            Ok(TlsAcceptor::from(Arc::new(config)))
        })
        .map(Self)
    }

    /// Shakes hands with a peer that connected. The caller sets the deadline.
    pub async fn accept(&self, stream: Stream) -> io::Result<Stream> {
        let stream = self.0.current().accept(stream).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Server(stream))))
    }
}

impl ClientTls {
    /// Loads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        Reloading::load(files, |files| {
            let config = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&files.cert, error))?
                .with_root_certificates(roots(files)?)
                .with_client_auth_cert(chain(files)?, key(files)?)
                .map_err(|error| wrong(&files.cert, error))?;
            Ok(TlsConnector::from(Arc::new(config)))
        })
        .map(Self)
    }

    /// Shakes hands with an agent that was dialed. The caller sets the deadline.
    pub async fn connect(&self, stream: Stream) -> io::Result<Stream> {
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let stream = self.0.current().connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

type Build<T> = fn(&TlsFiles) -> Result<T, TlsError>;

/// Something made from files, made again when they change.
struct Reloading<T> {
    files: TlsFiles,
    build: Build<T>,
    made: Mutex<(Vec<Option<FileStamp>>, T)>,
}

impl<T: Clone> Reloading<T> {
    fn load(files: TlsFiles, build: Build<T>) -> Result<Self, TlsError> {
        let seen = files.seen();
        let made = Mutex::new((seen, build(&files)?));
        Ok(Self { files, build, made })
    }

    fn current(&self) -> T {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.files.seen();
        if seen != made.0 {
            // Remembered also when it does not load: said once, not at every connection.
            made.0 = seen;
            match (self.build)(&self.files) {
                Ok(new) => {
                    tracing::info!(cert = %self.files.cert.display(), "certificates read again");
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

impl TlsFiles {
    fn seen(&self) -> Vec<Option<FileStamp>> {
        let files = [&self.cert, &self.key, &self.ca];
        files.map(|path| FileStamp::of(path)).to_vec()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
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

fn chain(files: &TlsFiles) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(&files.cert)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(path, error))?;
    if certificates.is_empty() {
        return Err(wrong(path, "no certificate in it"));
    }
    Ok(certificates)
}

fn key(files: &TlsFiles) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mode = fs::metadata(&files.key)
        .map_err(|error| wrong(&files.key, error))?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        return Err(wrong(
            &files.key,
            "a private key that everybody may read; chmod o= it",
        ));
    }
    PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error))
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> TlsError {
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
        let error = ServerTls::load(authority.files()).err().unwrap();
        assert!(error.to_string().contains(&key.display().to_string()));
    }

    async fn handshake(server: &ServerTls, client: &ClientTls) -> io::Result<(Stream, Stream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (accepted, connected) = tokio::join!(
            server.accept(Stream::Unix(theirs)),
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
            let mut ca = CertificateParams::new([]).unwrap();
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
            let key = KeyPair::generate().unwrap();
            let leaf = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
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
            ServerTls::load(self.files()).unwrap()
        }

        fn client(&self) -> ClientTls {
            ClientTls::load(self.files()).unwrap()
        }
    }
}
