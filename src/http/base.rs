//! The address of a server as somebody wrote it, checked before anything is sent there.

use std::net::Ipv6Addr;
use ureq::http::Uri;

/// Checks a base URL of `http` or `https`, to which paths are added: a host, perhaps a port, perhaps a
/// path, and nothing else.
///
/// # Errors
/// What is wrong, without what may be a secret.
pub(crate) fn check_base(url: &str) -> Result<(), String> {
    let shown = url.split('@').next_back().unwrap_or_default();
    if url.contains('@') {
        return Err(format!(
            "an address with a user or password is seen by everybody who lists processes: put a token into a \
             file, name that with --token-file, and write {shown:?} only"
        ));
    }
    if url.contains('#') {
        return Err(format!(
            "{url:?} has a fragment (#), which no server is sent"
        ));
    }
    if url.contains('?') {
        return Err(format!(
            "{url:?} has a query (?), and paths are added to the address"
        ));
    }
    let wrong = |what: &str| {
        Err(format!(
            "{url:?} has {what}, for example https://central.example:8443"
        ))
    };
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong("no host that can be one");
    };
    let host = uri.host().unwrap_or_default();
    if !is_host(host) {
        return wrong("no host that can be one");
    }
    // What stands behind the host is its port, or nothing.
    let rest = uri
        .authority()
        .map_or("", |all| all.as_str())
        .strip_prefix(host);
    let port = rest.unwrap_or_default();
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match port.strip_prefix(':') {
        Some(port) if !is_port(port) => wrong("no port that can be one"),
        _ => Ok(()),
    }
}

/// A name of the DNS (with `_`, which some have), or an address.
fn is_host(host: &str) -> bool {
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    // 10.0.0 and 300.1.1.1 are neither addresses nor names.
    let is_address = || name.parse::<std::net::Ipv4Addr>().is_ok();
    name.len() <= 253
        && name.split('.').all(is_label)
        && (!name.split('.').next_back().is_some_and(is_number) || is_address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_host_and_perhaps_a_port_and_a_path() {
        for url in [
            "http://c",
            "https://central.example.com:8443/base/path",
            "http://10.1.2.3:80",
            "http://[fd00::1]:80/x",
            "https://host_1.local.",
        ] {
            assert_eq!(check_base(url), Ok(()), "{url}");
        }
        for (url, said) in [
            ("https://u:secret@c", "with a user or password"),
            ("https://user@c", "with a user or password"),
            ("https://c/#x", "fragment"),
            ("https://c?x=1", "query"),
            ("https://", "no host"),
            ("https:///x", "no host"),
            ("https://a b", "no host"),
            ("https://-", "no host"),
            ("https://a..b", "no host"),
            ("https://300.1.1.1", "no host"),
            ("https://[::x]", "no host"),
            ("https://!!", "no host"),
            ("https://c:0", "no port"),
            ("https://c:99999", "no "),
            ("https://c:", "no port"),
        ] {
            let error = check_base(url).unwrap_err();
            assert!(
                error.contains(said) && !error.contains("secret"),
                "{url}: {error}"
            );
        }
    }
}
