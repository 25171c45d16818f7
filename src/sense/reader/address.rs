//! Where reports are read: `nats://HOST?stream=NAME[&consumer=NAME][&create=no]`.

use crate::nats::NatsAddress;
use std::fmt;
use std::str::FromStr;

/// A stream, and the name of the consumer that it is read by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportsAddress {
    /// The stream, and the servers that lead to it.
    pub nats: NatsAddress,
    /// The durable consumer; `None`: one is named after the store.
    pub consumer: Option<String>,
}

/// What begins the setting in the address.
const CONSUMER: &str = "consumer=";

impl FromStr for ReportsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let (ours, rest): (Vec<&str>, Vec<&str>) = query
            .split('&')
            .partition(|setting| setting.starts_with(CONSUMER));
        // The address without it first: it may hold a secret, which is not repeated.
        let nats: NatsAddress = format!("{place}?{}", rest.join("&")).parse()?;
        let consumer = match ours.as_slice() {
            [] => None,
            [one] => one.strip_prefix(CONSUMER),
            _ => return Err(format!("{text:?}: the consumer is there twice")),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if let Some(name) = consumer
            && (name.is_empty() || name.len() > 255 || !name.bytes().all(allowed))
        {
            return Err(format!(
                "{text:?}: the name of a consumer is of letters, digits, - and _"
            ));
        }
        if nats.cyclonedx {
            return Err(format!(
                "{text:?}: bills of materials are no reports: leave format=cyclonedx out"
            ));
        }
        if nats.replicas != 1 {
            return Err(format!(
                "{text:?}: replicas are for sensors, which make the stream"
            ));
        }
        if !nats.create && consumer.is_none() {
            return Err(format!(
                "{text:?}: with create=no the consumer is made by somebody else: name it, with &consumer=NAME"
            ));
        }
        Ok(Self {
            nats,
            consumer: consumer.map(str::to_owned),
        })
    }
}

impl fmt::Display for ReportsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nats.fmt(f)?;
        match &self.consumer {
            Some(name) => write!(f, "&{CONSUMER}{name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_the_stream_and_perhaps_the_consumer() {
        for text in [
            "nats://c:4222?stream=R",
            "tls://u@a:1,b:2?stream=R&create=no&consumer=fleet",
        ] {
            assert_eq!(text.parse::<ReportsAddress>().unwrap().to_string(), text);
        }
        let turned = "nats://c?consumer=f-1&stream=R".parse::<ReportsAddress>();
        let turned = turned.unwrap().to_string();
        assert_eq!(turned, "nats://c:4222?stream=R&consumer=f-1");
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, said) in [
            ("nats://c?stream=R&create=no", "name it"),
            ("nats://c?stream=R&consumer=a.b", "letters"),
            ("nats://c?stream=R&consumer=", "letters"),
            ("nats://c?stream=R&consumer=a&consumer=b", "twice"),
            ("nats://c?stream=R&replicas=3", "replicas"),
            ("nats://c?stream=R&format=cyclonedx", "no reports"),
            ("nats://c?consumer=a", "no stream"),
            ("https://c?stream=R", "not nats://"),
        ] {
            let error = text.parse::<ReportsAddress>().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let secret = "nats://u:s3cret@c?stream=R&consumer=a.b".parse::<ReportsAddress>();
        assert!(!secret.unwrap_err().contains("s3cret"));
    }
}
