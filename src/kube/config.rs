//! Where the API server is, whom to trust, and who asks: in a pod, or by a kubeconfig.

use super::KubeError;
use crate::file_stamp::FileStamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What Kubernetes mounts into every pod.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Longest kubeconfig or certificate file that is read, in bytes.
pub(super) const LONGEST_FILE: u64 = 1 << 20;

/// Longest token that is read, in bytes.
const LONGEST_TOKEN: u64 = 64 << 10;

/// PEM, or the file with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Material {
    File(PathBuf),
    Pem(Vec<u8>),
}

/// What is sent as bearer token.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Read at every request: it is renewed every hour.
    File(PathBuf),
    Text(String),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How one API server is reached.
#[derive(Clone, Debug)]
pub(super) struct ApiAccess {
    /// Name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// In front of every path; without a slash at its end.
    pub(super) prefix: String,
    /// Whose certificate it must show.
    pub(super) tls_name: String,
    pub(super) roots: Option<Material>,
    pub(super) client: Option<(Material, Material)>,
    pub(super) token: Option<Token>,
}

impl ApiAccess {
    /// Of the server at this address.
    pub(super) fn new(
        server: &str,
        tls_name: Option<String>,
        roots: Option<Material>,
        client: Option<(Material, Material)>,
        token: Option<Token>,
    ) -> Result<Self, KubeError> {
        let wrong = || {
            KubeError::Configuration(format!(
                "server {server:?} is not https://HOST, with a port and a path if need be"
            ))
        };
        let rest = server.strip_prefix("https://").ok_or_else(wrong)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (authority, 443),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_plain = |c: char| c.is_ascii_graphic() && !"/?#@[]\\\"".contains(c);
        let is_path = path
            .chars()
            .all(|c| c.is_ascii_graphic() && !"?#\\\"".contains(c));
        if host.is_empty() || !host.chars().all(is_plain) || !is_path {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            prefix: path.trim_end_matches('/').to_owned(),
            tls_name: tls_name.unwrap_or_else(|| host.to_owned()),
            roots,
            client,
            token,
        })
    }

    /// As Kubernetes tells a pod.
    pub(super) fn in_cluster(
        variable: impl Fn(&str) -> Option<String>,
        folder: &Path,
    ) -> Result<Self, KubeError> {
        let host = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty());
        let Some(host) = host else {
            return Err(KubeError::Configuration(
                "this is no pod (KUBERNETES_SERVICE_HOST is not set): give --kubeconfig FILE"
                    .into(),
            ));
        };
        let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".into());
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host,
        };
        Self::new(
            &format!("https://{host}:{port}"),
            None,
            Some(Material::File(folder.join("ca.crt"))),
            None,
            Some(Token::File(folder.join("token"))),
        )
    }

    /// Host and port, for a `Host` field and for people.
    pub(super) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The token as it is now.
    pub(super) fn token(&self) -> Result<Option<String>, KubeError> {
        let (token, origin) = match &self.token {
            None => return Ok(None),
            Some(Token::Text(text)) => (text.clone(), "the kubeconfig".to_owned()),
            Some(Token::File(path)) => {
                let origin = format!("token file {}", path.display());
                let read = bounded(path, LONGEST_TOKEN);
                let read = read.map_err(|e| KubeError::Configuration(format!("{origin}: {e}")))?;
                (String::from_utf8_lossy(&read).into_owned(), origin)
            }
        };
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let what = format!("{origin}: there is no token in it");
            return Err(KubeError::Configuration(what));
        }
        Ok(Some(token.to_owned()))
    }

    /// Certificates as they are now.
    pub(super) fn tls(&self) -> Result<ClientConfig, KubeError> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            Some(material) => {
                for certificate in certificates(material)? {
                    roots.add(certificate).map_err(|e| material.wrong(e))?;
                }
                if roots.is_empty() {
                    return Err(material.wrong("there is no certificate in it"));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| KubeError::Configuration(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let pem = key.read()?;
                let der = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| key.wrong("there is no private key in it"))?;
                config
                    .with_client_auth_cert(certificates(certificate)?, der)
                    .map_err(|error| certificate.wrong(error))?
            }
        };
        // Over HTTP/2 there is no upgrade.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The files that say all this, the token apart, and as they are now.
    pub(super) fn stamps(&self, kubeconfig: Option<&PathBuf>) -> Vec<Option<FileStamp>> {
        let materials = self.roots.iter().chain(
            self.client
                .iter()
                .flat_map(|(certificate, key)| [certificate, key]),
        );
        let files = materials.filter_map(|material| match material {
            Material::File(path) => Some(path),
            Material::Pem(_) => None,
        });
        files
            .chain(kubeconfig)
            .map(|path| FileStamp::of(path))
            .collect()
    }
}

impl Material {
    fn read(&self) -> Result<Vec<u8>, KubeError> {
        match self {
            Self::Pem(pem) => Ok(pem.clone()),
            Self::File(path) => bounded(path, LONGEST_FILE).map_err(|error| self.wrong(error)),
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
    fn wrong(&self, what: impl ToString) -> KubeError {
        let what = what.to_string();
        KubeError::Configuration(match self {
            Self::Pem(_) => format!("the certificates in the kubeconfig: {what}"),
            Self::File(path) => format!("{}: {what}", path.display()),
        })
    }
}

fn certificates(material: &Material) -> Result<Vec<CertificateDer<'static>>, KubeError> {
    CertificateDer::pem_slice_iter(&material.read()?)
        .collect::<Result<_, _>>()
        .map_err(|error| material.wrong(error))
}

/// A file of at most this many bytes.
pub(super) fn bounded(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    match bytes.len() as u64 > most {
        true => Err(format!("it is over {most} bytes")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_finds_its_api_server_and_another_process_is_told_what_to_give() {
        let folder = tempfile::tempdir().unwrap();
        let pod = |host: &str| {
            let host = host.to_owned();
            ApiAccess::in_cluster(
                move |name| match name {
                    "KUBERNETES_SERVICE_HOST" => Some(host.clone()),
                    "KUBERNETES_SERVICE_PORT" => Some("6443".into()),
                    _ => None,
                },
                folder.path(),
            )
        };
        assert_eq!(pod("10.96.0.1").unwrap().authority(), "10.96.0.1:6443");
        assert_eq!(pod("fd00::1").unwrap().authority(), "[fd00::1]:6443");
        let none = pod("").err().unwrap().to_string();
        assert!(none.contains("--kubeconfig"), "{none}");
    }

    /// Loss prevented: a token that expired an hour ago, because it was read at the start.
    #[test]
    fn the_token_file_is_read_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = Some(Token::File(path.clone()));
        let access = ApiAccess::new("https://a", None, None, None, token).unwrap();
        assert!(
            access
                .token()
                .unwrap_err()
                .to_string()
                .contains("token file")
        );
        for text in ["one\n", "two"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(access.token().unwrap().unwrap(), text.trim());
        }
        for text in ["", " \n", "a b", "a\r\nX: y"] {
            std::fs::write(&path, text).unwrap();
            let error = access.token().unwrap_err().to_string();
            assert!(error.contains("no token in it"), "{error}");
        }
        assert_eq!(format!("{access:?}").matches("two").count(), 0);
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for server in [
            "",
            "http://a",
            "https://",
            "https://a:x",
            "https://a b",
            "https://u@h",
        ] {
            let new = ApiAccess::new(server, None, None, None, None);
            assert!(new.is_err(), "{server}");
        }
        let access = ApiAccess::new("https://a.example/", None, None, None, None).unwrap();
        assert_eq!((access.port, access.prefix.as_str()), (443, ""));
    }
}
