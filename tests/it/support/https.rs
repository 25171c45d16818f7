//! A client of HTTPS that shows answers as they are, for the contract with an API server.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes both ways.
pub trait Bytes: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Bytes for T {}

/// An answer.
#[derive(Debug)]
pub struct HttpsAnswer {
    pub code: u16,
    /// In small letters.
    pub head: String,
    pub body: String,
}

impl HttpsAnswer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The lines of a watch.
    pub fn events(&self) -> Vec<Value> {
        let lines = self.body.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Asks one server.
#[derive(Clone)]
pub struct Https {
    config: Arc<ClientConfig>,
    host: String,
}

impl Https {
    pub fn new(server: &str, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            config: Arc::new(config),
            host: server.trim_start_matches("https://").to_owned(),
        }
    }

    pub fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> HttpsAnswer {
        let name = self.host.split(':').next().unwrap().to_owned();
        let name = ServerName::try_from(name).unwrap();
        let connection = ClientConnection::new(self.config.clone(), name).unwrap();
        let tcp = TcpStream::connect(&self.host).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        let token = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: test\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.host,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        // Not everybody says goodbye in TLS.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = bytes[end + 4..].to_vec();
        let body = match head.contains("transfer-encoding: chunked") {
            true => dechunked(&body),
            false => body,
        };
        HttpsAnswer {
            code,
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }
}

fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let len = std::str::from_utf8(&bytes[..end]).unwrap();
        let len = usize::from_str_radix(len, 16).unwrap();
        out.extend_from_slice(&bytes[end + 2..(end + 2 + len).min(bytes.len())]);
        if len == 0 {
            break;
        }
        bytes = &bytes[end + 4 + len..];
    }
    out
}

/// TLS 1.3 as virt-handler's: nothing of the server is verified.
pub fn client_config() -> ClientConfig {
    super::virt_handler::config(None, &rustls::version::TLS13)
}
