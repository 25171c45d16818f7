//! Addresses: where a server listens, and where a client finds one.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

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
    /// `kubevirt:NAMESPACE/NAME`, or `kubevirt:NAMESPACE/NAME:PORT`: a virtual machine, through the API of its
    /// cluster.
    Kubevirt {
        /// `NAMESPACE/NAME`, each a name as Kubernetes allows it.
        machine: Arc<str>,
        /// VSOCK port there.
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
                "{text:?} is not an address to dial: vsock:CID:PORT, unix:PATH, hybrid:PATH:PORT or kubevirt:NAMESPACE/NAME"
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
            Some(("kubevirt", rest)) => {
                let (machine, port) = match rest.split_once(':') {
                    Some((machine, port)) => (machine, port.parse().map_err(|_| wrong())?),
                    None => (rest, DEFAULT_PORT),
                };
                let parts = machine.split_once('/').ok_or_else(wrong)?;
                if !is_object_name(parts.0) || !is_object_name(parts.1) {
                    return Err(wrong());
                }
                Ok(Self::Kubevirt {
                    machine: machine.into(),
                    port,
                })
            }
            _ => Err(wrong()),
        }
    }
}

/// Whether Kubernetes may call an object so: a DNS name.
fn is_object_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

impl DialAddress {
    /// Namespace, name and port, where it is a virtual machine in a cluster.
    pub fn kubevirt(&self) -> Option<(&str, &str, u32)> {
        let Self::Kubevirt { machine, port } = self else {
            return None;
        };
        let (namespace, name) = machine.split_once('/')?;
        Some((namespace, name, *port))
    }

    /// Whether a wait may be held there: through an API server it would occupy one of its seats.
    pub fn can_hold_waits(&self) -> bool {
        !matches!(self, Self::Kubevirt { .. })
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
            Self::Kubevirt { machine, port } if *port == DEFAULT_PORT => {
                write!(f, "kubevirt:{machine}")
            }
            Self::Kubevirt { machine, port } => write!(f, "kubevirt:{machine}:{port}"),
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
            "kubevirt:team-a/web-1.x",
            "kubevirt:team-a/web:1024",
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
            "kubevirt:web",
            "kubevirt:a/b/c",
            "kubevirt:a/../b",
            "kubevirt:a/b?x=y",
            "kubevirt:a/b:",
            "kubevirt:A/b",
            "tcp:1",
        ] {
            let error = text.parse::<DialAddress>().unwrap_err();
            assert!(error.contains("vsock:CID:PORT"), "{error}");
        }
    }
}
