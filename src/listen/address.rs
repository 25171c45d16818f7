//! Where a server of HTTP listens.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server of HTTP listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// `unix:PATH`, for its owner alone.
    Unix(PathBuf),
    /// `ADDRESS:PORT` or `localhost:PORT`.
    Tcp(SocketAddr),
}

impl HttpAddress {
    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
        }
    }
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not unix:PATH, localhost:PORT or ADDRESS:PORT, for example 127.0.0.1:9819"
            )
        };
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("localhost", port)) => {
                let port: u16 = port.parse().map_err(|_| wrong())?;
                Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()))
            }
            _ => text.parse().map(Self::Tcp).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_and_the_loopback_device_are_local() {
        for (text, is_local) in [
            ("unix:/run/x.sock", true),
            ("localhost:9819", true),
            ("127.0.0.1:9819", true),
            ("127.8.9.1:9819", true),
            ("[::1]:9819", true),
            ("[::ffff:127.0.0.1]:9819", true),
            ("0.0.0.0:9819", false),
            ("[::]:9819", false),
            ("10.0.0.7:443", false),
        ] {
            let address: HttpAddress = text.parse().unwrap();
            assert_eq!(address.is_local(), is_local, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "unix:",
            "9819",
            "host:1",
            "localhost:x",
            "1.2.3.4",
            "vsock:1",
        ] {
            assert!(text.parse::<HttpAddress>().is_err(), "{text}");
        }
    }
}
