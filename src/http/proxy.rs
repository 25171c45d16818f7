//! The proxy that the environment names for an `https` address.
//!
//! ```text
//! HTTPS_PROXY   http://PROXY:3128   asked to CONNECT to hosts of https addresses, and of no others
//! ALL_PROXY                         the same, where there is no HTTPS_PROXY
//! NO_PROXY      a.example,10.0.0.0/8,[::1]:443,*   hosts that are dialed all the same
//! ```
//!
//! Names in small letters count first. `http` addresses are always dialed directly: they are for hosts
//! nearby. A name in `NO_PROXY` stands for itself and whatever is below it, with or without a dot in
//! front; an address may have a prefix length. An entry with a port counts for that port only.

use super::HttpError;
use std::net::IpAddr;
use ureq::Proxy;
use ureq::http::Uri;

/// The proxy for `url`, if the environment names one.
///
/// # Errors
/// What is named is no address of an HTTP proxy.
pub(super) fn proxy_for(
    url: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, HttpError> {
    let set = |name: &'static str| {
        let small = environment(&name.to_ascii_lowercase());
        let value = small.or_else(|| environment(name))?;
        let value = value.trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    };
    // An address that is none is said by whoever dials it.
    let Ok(uri) = url.parse::<Uri>() else {
        return Ok(None);
    };
    if uri.scheme_str() != Some("https") {
        return Ok(None);
    }
    let Some((name, address)) = set("HTTPS_PROXY").or_else(|| set("ALL_PROXY")) else {
        return Ok(None);
    };
    let host = uri.host().unwrap_or_default();
    let exceptions = set("NO_PROXY").map(|(_, list)| list).unwrap_or_default();
    if is_excepted(host, uri.port_u16().unwrap_or(443), &exceptions) {
        return Ok(None);
    }
    // It may have a password in it.
    let wrong = |what: &str| HttpError::Configuration(format!("{name} in the environment: {what}"));
    let proxy = Proxy::new(&address).map_err(|_| wrong("is no address of a proxy"))?;
    if proxy.host().is_empty() {
        return Err(wrong("is no address of a proxy"));
    }
    match proxy.protocol() {
        ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https => Ok(Some(proxy)),
        _ => Err(wrong(
            "names a SOCKS proxy, and only HTTP proxies are supported",
        )),
    }
}

/// Whether a list of exceptions has this host.
fn is_excepted(host: &str, port: u16, exceptions: &str) -> bool {
    let host = bare(host).trim_end_matches('.').to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    exceptions
        .split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            let (entry, of_port) = split_port(entry);
            let names = match address {
                _ if entry == "*" => true,
                Some(address) => covers(entry, address),
                None => is_below(&host, &entry.to_ascii_lowercase()),
            };
            names && of_port.is_none_or(|of| of == port)
        })
}

/// `[::1]` without its brackets.
fn bare(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => port
            .parse()
            .map_or((entry, None), |port| (host, Some(port))),
        _ => (entry, None),
    }
}

/// Whether an entry is this address, or a network with it.
fn covers(entry: &str, address: IpAddr) -> bool {
    let (network, len) = match entry.split_once('/') {
        Some((network, len)) => (network, len.parse::<u32>().ok()),
        None => (entry, Some(128)),
    };
    let Ok(network) = bare(network).parse::<IpAddr>() else {
        return false;
    };
    let (ours, theirs, bits) = match (network.to_canonical(), address.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let Some(len) = len.filter(|len| *len <= bits || !entry.contains('/')) else {
        return false;
    };
    let ignored = bits - len.min(bits);
    ours.checked_shr(ignored).unwrap_or(0) == theirs.checked_shr(ignored).unwrap_or(0)
}

fn is_below(host: &str, entry: &str) -> bool {
    let name = entry.trim_start_matches("*.").trim_matches('.');
    let above = host.strip_suffix(name);
    !name.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, environment: &[(&str, &str)]) -> Result<Option<String>, String> {
        let value = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxy = proxy_for(url, value).map_err(|error| error.to_string())?;
        Ok(proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())))
    }

    #[test]
    fn each_variable_is_for_its_kind_of_address() {
        let named = |url, environment: &[(&str, &str)]| proxy(url, environment).unwrap();
        let http = ("HTTP_PROXY", "http://p:1");
        let https = ("HTTPS_PROXY", "http://q:2");
        let all = ("all_proxy", "r:3");
        let none: Option<String> = None;
        for (url, environment, expected) in [
            ("http://c/", &[http, https, all][..], none.clone()),
            ("https://c/", &[http], none.clone()),
            ("https://c/", &[http, https, all], Some("q:2".into())),
            ("HTTPS://c/", &[all], Some("r:3".into())),
            (
                "https://c/",
                &[https, ("https_proxy", "s:4")],
                Some("s:4".into()),
            ),
            ("https://c/", &[("HTTPS_PROXY", " ")], none.clone()),
            ("https://c/", &[https, ("no_proxy", "c")], none),
        ] {
            assert_eq!(named(url, environment), expected, "{url} {environment:?}");
        }
        let socks = proxy("https://c/", &[("ALL_PROXY", "socks5://u:secret@p")]).unwrap_err();
        assert!(
            socks.starts_with("ALL_PROXY in the environment: names a SOCKS"),
            "{socks}"
        );
        let nonsense = proxy("https://c/", &[("HTTPS_PROXY", "http://u:secret@:x/")]).unwrap_err();
        assert!(nonsense.contains("no address of a proxy") && !nonsense.contains("secret"));
    }

    #[test]
    fn exceptions_are_names_addresses_networks_and_ports() {
        for (host, list, expected) in [
            ("central.example.com", "example.com", true),
            ("central.example.com", ".example.com, other", true),
            ("central.example.com", "*.example.com", true),
            ("CENTRAL.example.com.", "Central.Example.com", true),
            ("notexample.com", "example.com", false),
            ("example.com", "central.example.com", false),
            ("example.com", "example.com:443", true),
            ("example.com", "example.com:8443", false),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.3:443 x", true),
            ("10.1.2.3", "10.1.2.0/33", false),
            ("10.1.2.3", "0.0.0.0/0", true),
            ("10.1.2.3", "::/0", false),
            ("[fd00::7]", "fd00::/8", true),
            ("[fd00::7]", "[fd00::7]:443", true),
            ("[fe80::7]", "fd00::/8", false),
            ("anything", "*", true),
            ("anything", ",, ", false),
        ] {
            assert_eq!(is_excepted(host, 443, list), expected, "{host} in {list}");
        }
    }
}
