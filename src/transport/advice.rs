//! What to do about a connection that did not come about, beside what the kernel says of it.

use super::DialAddress;
use std::io::{self, ErrorKind};

/// What the kernel said, and what it means of this address.
pub fn explain(address: &DialAddress, error: &io::Error) -> String {
    match advice(address, error) {
        Some(advice) => format!("{error}: {advice}"),
        None => error.to_string(),
    }
}

/// `vsock(7)`, `unix(7)`, `connect(2)`.
fn advice(address: &DialAddress, error: &io::Error) -> Option<&'static str> {
    const ENODEV: i32 = 19;
    const EAFNOSUPPORT: i32 = 97;
    let code = error.raw_os_error()?;
    match (address, error.kind()) {
        (DialAddress::Vsock { .. }, _) if code == ENODEV => Some(
            "no guest with this CID runs here, or this machine has no VSOCK for guests (modprobe vhost_vsock)",
        ),
        (DialAddress::Vsock { .. }, _) if code == EAFNOSUPPORT => {
            Some("the kernel has no VSOCK, or this service may not use it")
        }
        (DialAddress::Vsock { .. }, ErrorKind::ConnectionReset) => {
            Some("nothing listens on this port of the guest; does afferent-serve run there?")
        }
        (DialAddress::Vsock { .. }, ErrorKind::TimedOut) => {
            Some("the guest is there and does not answer; it may be starting, or hang")
        }
        (DialAddress::Unix(_) | DialAddress::Hybrid { .. }, ErrorKind::NotFound) => {
            Some("there is no such socket; whoever makes it does not run")
        }
        (DialAddress::Unix(_) | DialAddress::Hybrid { .. }, ErrorKind::ConnectionRefused) => {
            Some("nothing listens on this socket any more; whoever made it has ended")
        }
        (DialAddress::Kubevirt { .. }, _) => None,
        (_, ErrorKind::PermissionDenied) => {
            Some("this user may not connect to it; root and the agent's own user may")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_comes_first_and_what_to_do_behind_it() {
        let address = |text: &str| text.parse::<DialAddress>().unwrap();
        for (at, code, advised) in [
            ("vsock:3:818", 19, Some("modprobe vhost_vsock")),
            ("vsock:3:818", 104, Some("afferent-serve")),
            ("vsock:3:818", 110, Some("may be starting")),
            ("vsock:3:818", 97, Some("has no VSOCK")),
            ("unix:/run/a.sock", 2, Some("no such socket")),
            ("unix:/run/a.sock", 111, Some("any more")),
            ("hybrid:/run/a.sock:818", 13, Some("may not connect")),
            // Nothing is said of the device that a socket file has not.
            ("unix:/run/a.sock", 19, None),
            ("kubevirt:ns/vm", 13, None),
        ] {
            let error = io::Error::from_raw_os_error(code);
            let said = explain(&address(at), &error);
            assert!(said.starts_with(&error.to_string()), "{said}");
            match advised {
                Some(advised) => assert!(said.contains(advised), "{said}"),
                None => assert_eq!(said, error.to_string()),
            }
        }
        let unknown = io::Error::other("the greeting was refused");
        assert_eq!(
            explain(&address("vsock:3:818"), &unknown),
            unknown.to_string()
        );
    }
}
