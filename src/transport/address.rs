//! Addresses: where a server listens, and where a client finds one.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Port on which an agent listens unless told otherwise.
pub const DEFAULT_PORT: u32 = 818;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `vsock:PORT`, on every CID of this machine.
    Vsock(u32),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Where a client finds a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DialAddress {
    /// `vsock:CID:PORT`.
    Vsock {
        /// Context id of the machine.
        cid: u32,
        /// Port there.
        port: u32,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `hybrid:PATH:PORT`: a guest's VSOCK port behind the unix socket of Firecracker, Cloud
    /// Hypervisor or vhost-device-vsock.
    Hybrid {
        /// The hypervisor's socket.
        path: PathBuf,
        /// VSOCK port in the guest.
        port: u32,
    },
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address to listen on: vsock:PORT or unix:PATH");
        match text.split_once(':') {
            Some(("vsock", port)) => port.parse().map(Self::Vsock).map_err(|_| wrong()),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(wrong()),
        }
    }
}

impl FromStr for DialAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not an address to dial: vsock:CID:PORT, unix:PATH or hybrid:PATH:PORT"
            )
        };
        match text.split_once(':') {
            Some(("vsock", rest)) => {
                let (cid, port) = rest.split_once(':').ok_or_else(wrong)?;
                Ok(Self::Vsock {
                    cid: cid.parse().map_err(|_| wrong())?,
                    port: port.parse().map_err(|_| wrong())?,
                })
            }
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("hybrid", rest)) => match rest.rsplit_once(':') {
                Some((path, port)) if !path.is_empty() => Ok(Self::Hybrid {
                    path: path.into(),
                    port: port.parse().map_err(|_| wrong())?,
                }),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock(port) => write!(f, "vsock:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for DialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Hybrid { path, port } => write!(f, "hybrid:{}:{port}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_text() {
        for text in [
            "vsock:3:818",
            "unix:/run/a:b.sock",
            "hybrid:/run/vm:1.sock:818",
        ] {
            assert_eq!(text.parse::<DialAddress>().unwrap().to_string(), text);
        }
        for text in ["vsock:818", "unix:/run/afferent.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_allowed() {
        for text in [
            "",
            "vsock",
            "vsock:3",
            "vsock:a:1",
            "unix:",
            "hybrid:/x",
            "hybrid::1",
            "tcp:1",
        ] {
            let error = text.parse::<DialAddress>().unwrap_err();
            assert!(error.contains("vsock:CID:PORT"), "{error}");
        }
    }
}
