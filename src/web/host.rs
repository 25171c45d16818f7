//! Which names of this server a request may carry: against DNS rebinding, where a page of somebody else's lets
//! its own name lead to this address and asks in the name of who looks at it.

use std::net::IpAddr;

/// The names that are ours, beside the address that the peer connected to and those of the loopback device.
#[derive(Clone, Debug, Default)]
pub(super) struct HostPolicy {
    names: Vec<String>,
}

impl HostPolicy {
    /// With these names of the operator.
    pub(super) fn new(names: &[String]) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase());
        Self {
            names: names.collect(),
        }
    }

    /// Whether this is a name of ours: `NAME`, `ADDRESS` or either with a port. The port does not count, so that a
    /// tunnel may begin at another one.
    pub(super) fn allows(&self, host: &str, local: Option<IpAddr>) -> bool {
        let Some(name) = without_port(host) else {
            return false;
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name == "localhost" || self.names.contains(&name) {
            return true;
        }
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let address: Result<IpAddr, _> = address.unwrap_or(&name).parse();
        address.is_ok_and(|address| {
            let address = address.to_canonical();
            address.is_loopback() || local.is_some_and(|local| local.to_canonical() == address)
        })
    }
}

/// The name or address in `NAME[:PORT]`; `None`: it is no such text.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.starts_with('[') {
        true => host.find(']')? + 1,
        false => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at_checked(end)?;
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()),
    };
    (is_port && !name.is_empty()).then_some(name)
}

/// Whether an operator may name this server so: a DNS name or an address, without a port.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_dns = (1..=253).contains(&text.len()) && text.bytes().all(allowed);
    is_dns || text.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_names_of_this_server_are_allowed() {
        let policy = HostPolicy::new(&["Fleet.example.org".into()]);
        let local = Some("10.0.0.7".parse().unwrap());
        for (host, is_allowed) in [
            ("localhost", true),
            ("localhost:9819", true),
            ("LOCALHOST.:1", true),
            ("127.0.0.1:9819", true),
            ("[::1]:9819", true),
            ("[::ffff:127.0.0.1]", true),
            ("10.0.0.7:9819", true),
            ("[::ffff:10.0.0.7]:9819", true),
            ("fleet.example.org:443", true),
            ("fleet.EXAMPLE.org.", true),
            ("10.0.0.8", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("fleet.example.org.evil.example", false),
            ("localhost:evil", false),
            ("localhost:123456", false),
            ("localhost@evil.example", false),
            ("evil.example:80@localhost", false),
            ("[localhost]", false),
            ("[::1", false),
            ("", false),
            (":80", false),
            ("\u{e9}", false),
        ] {
            assert_eq!(policy.allows(host, local), is_allowed, "{host}");
        }
        assert!(
            !policy.allows("10.0.0.7", None),
            "a unix socket has no address"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_judged(host in ".{0,40}") {
            let allowed = HostPolicy::default().allows(&host, None);
            prop_assert!(!allowed || host.to_ascii_lowercase().starts_with("localhost") || host.contains(['1', ':']));
        }
    }
}
