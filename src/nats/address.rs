//! Where a stream is, as it is written: `nats://[USER@]HOST[:PORT][,HOST[:PORT]...]?stream=NAME`.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The port of a server, unless somebody says otherwise.
const PORT: u16 = 4222;

/// Most copies of a stream that a cluster keeps.
const MOST_REPLICAS: u8 = 5;

/// How it is written, for those who wrote it otherwise.
const FORM: &str = "nats://[USER@]HOST[:PORT][,HOST[:PORT]...]?stream=NAME[&format=cyclonedx][&create=no][&replicas=N], or tls://";

/// A stream, and the servers that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsAddress {
    /// `tls://`: nothing is said to a server that does not do TLS.
    pub tls: bool,
    /// Whose password the file of secrets holds, if it holds a password.
    pub user: Option<String>,
    /// Servers of one cluster, at least one.
    pub hosts: Vec<NatsHost>,
    /// Name of the stream.
    pub stream: String,
    /// `format=cyclonedx`: the stream takes bills of materials, and no reports.
    pub cyclonedx: bool,
    /// Whether the stream is made where it is missing.
    pub create: bool,
    /// Copies of the stream, if it is made here.
    pub replicas: u8,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsHost {
    /// A name or an IP address, without brackets.
    pub name: String,
    /// Its port.
    pub port: u16,
}

impl FromStr for NatsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?}: {what}; it is {FORM}");
        let (tls, rest) = match text.split_once("://") {
            Some(("nats", rest)) => (false, rest),
            Some(("tls", rest)) => (true, rest),
            _ => return Err(wrong("not nats:// or tls://")),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, hosts) = match place.rsplit_once('@') {
            // Not repeated: it is a secret.
            Some((user, _)) if user.contains(':') => {
                return Err(format!(
                    "a password in the address is seen by everybody who lists processes: \
                     put it into a file, name that with --token-file, and write {FORM}"
                ));
            }
            Some((user, hosts)) if is_word(user) => (Some(user.to_owned()), hosts),
            Some(_) => return Err(wrong("no user before the @")),
            None => (None, place),
        };
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts).split(',');
        let hosts: Option<Vec<NatsHost>> = hosts.map(host).collect();
        let mut address = Self {
            tls,
            user,
            hosts: hosts.ok_or_else(|| wrong("no host, or no port after it"))?,
            stream: String::new(),
            cyclonedx: false,
            create: true,
            replicas: 1,
        };
        let mut set = HashSet::new();
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            if !set.insert(setting.split('=').next()) {
                return Err(wrong(&format!("{setting:?} is there twice")));
            }
            address.set(setting).map_err(|what| wrong(&what))?;
        }
        if address.stream.is_empty() {
            return Err(wrong("no stream"));
        }
        Ok(address)
    }
}

impl NatsAddress {
    fn set(&mut self, setting: &str) -> Result<(), String> {
        match setting.split_once('=') {
            Some(("stream", name)) if is_stream_name(name) => {
                name.clone_into(&mut self.stream);
            }
            Some(("format", "cyclonedx")) => self.cyclonedx = true,
            Some(("create", "yes")) => self.create = true,
            Some(("create", "no")) => self.create = false,
            Some(("replicas", count)) => {
                let count = count.parse().ok();
                let count = count.filter(|n| (1..=MOST_REPLICAS).contains(n));
                self.replicas = count.ok_or("replicas are 1 to 5")?;
            }
            _ => return Err(format!("{setting:?} is no setting of it")),
        }
        Ok(())
    }
}

impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "tls://" } else { "nats://" })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        for (n, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if n == 0 { "" } else { "," })?;
        }
        write!(f, "?stream={}", self.stream)?;
        if self.cyclonedx {
            f.write_str("&format=cyclonedx")?;
        }
        if !self.create {
            f.write_str("&create=no")?;
        }
        if self.replicas != 1 {
            write!(f, "&replicas={}", self.replicas)?;
        }
        Ok(())
    }
}

impl fmt::Display for NatsHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]", self.name)?;
        } else {
            f.write_str(&self.name)?;
        }
        write!(f, ":{}", self.port)
    }
}

/// Whether a stream may have this name.
pub fn is_stream_name(text: &str) -> bool {
    text.len() <= 255 && is_word(text)
}

/// Of letters, digits, `-` and `_`: safe in a subject, and in an address.
fn is_word(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.bytes().all(allowed)
}

fn host(text: &str) -> Option<NatsHost> {
    let (name, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((name, port))) => (
            name,
            port.strip_prefix(':').or(port.is_empty().then_some(""))?,
        ),
        Some(None) => return None,
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port = match port {
        "" if text.ends_with(':') => return None,
        "" => PORT,
        port => port.parse().ok().filter(|port| *port != 0)?,
    };
    let is_label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-')
    };
    let is_host = match name.contains(':') {
        true => name.parse::<Ipv6Addr>().is_ok(),
        false => name
            .strip_suffix('.')
            .unwrap_or(name)
            .split('.')
            .all(is_label),
    };
    is_host.then(|| NatsHost {
        name: name.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_text() {
        for text in [
            "nats://c:4222?stream=REPORTS",
            "tls://afferent@a:1,b:2,[::1]:4222?stream=R&create=no&replicas=3",
            "nats://c:4222?stream=BOMS&format=cyclonedx&create=no",
        ] {
            assert_eq!(text.parse::<NatsAddress>().unwrap().to_string(), text);
        }
        let short: NatsAddress = "nats://a,b/?stream=R&create=yes".parse().unwrap();
        assert_eq!(short.to_string(), "nats://a:4222,b:4222?stream=R");
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, said) in [
            ("nats://c", "no stream"),
            ("nats://?stream=R", "no host"),
            ("nats://c:?stream=R", "no host"),
            ("nats://a,,b?stream=R", "no host"),
            ("nats://c:0?stream=R", "no host"),
            ("nats://[::1?stream=R", "no host"),
            ("nats://[::x]?stream=R", "no host"),
            ("nats://a..b?stream=R", "no host"),
            ("nats://-a?stream=R", "no host"),
            ("nats://@c?stream=R", "no user"),
            ("nats://c?stream=a.b", "\"stream=a.b\" is no setting"),
            ("nats://c?stream=R&replicas=0", "1 to 5"),
            (
                "nats://c?stream=R&format=spdx",
                "\"format=spdx\" is no setting",
            ),
            ("nats://c?stream=R&creat=no", "\"creat=no\" is no setting"),
            ("nats://c?stream=R&stream=S", "\"stream=S\" is there twice"),
            ("wss://c?stream=R", "not nats://"),
        ] {
            let error = text.parse::<NatsAddress>().unwrap_err();
            assert!(error.contains(said) && error.contains(FORM), "{error}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = "nats://u:s3cret@c?stream=R"
            .parse::<NatsAddress>()
            .unwrap_err();
        assert!(error.contains("--token-file") && !error.contains("s3cret"));
    }
}
