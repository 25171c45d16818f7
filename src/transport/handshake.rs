//! Why a TLS handshake with a peer came to nothing.
//!
//! Under TLS 1.3 a client ends its own handshake before the server has looked at its certificate: the server is
//! the only place where the reason is known, so it is told apart here and not only printed.

use super::certificate_names::NotAccepted;
use crate::clock::WallTime;
use rustls::CertificateError as Certificate;
use rustls::pki_types::UnixTime;
use std::io;
use std::time::Duration;

/// What kind of handshake failed, as counters name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A peer speaks TLS on a port without TLS.
    TlsOnPlaintext,
    /// A peer sent something else than TLS on a port with TLS.
    Plaintext,
    /// A peer showed no certificate.
    NoCertificate,
    /// No trusted authority signed the certificate.
    UnknownIssuer,
    /// The certificate is not valid yet by this machine's clock.
    NotValidYet,
    /// The certificate is not valid any more by this machine's clock.
    Expired,
    /// The certificate is not one for clients.
    WrongUsage,
    /// The certificate has another name than the one that is demanded.
    WrongName,
    /// The certificate cannot be used for another reason.
    BadCertificate,
    /// No authorities are known to verify the peer with.
    NoClientCa,
    /// The time was over before the handshake was.
    TimedOut,
    /// The peer closed the connection or refused this side.
    BrokenOff,
    /// Both sides have no version or algorithm in common, or the peer broke the protocol.
    Protocol,
}

impl Reason {
    /// Its name in counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsOnPlaintext => "tls_on_plaintext",
            Self::Plaintext => "plaintext",
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::NotValidYet => "not_valid_yet",
            Self::Expired => "expired",
            Self::WrongUsage => "wrong_usage",
            Self::WrongName => "wrong_name",
            Self::BadCertificate => "bad_certificate",
            Self::NoClientCa => "no_client_ca",
            Self::TimedOut => "timed_out",
            Self::BrokenOff => "broken_off",
            Self::Protocol => "protocol",
        }
    }
}

/// A handshake that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Refused {
    /// With a message for people.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }

    /// The time for a handshake is over.
    pub fn timed_out() -> Self {
        Self::new(
            Reason::TimedOut,
            "the TLS handshake did not end within --conn-deadline: the peer is silent, or waits for a plaintext answer",
        )
    }

    /// A peer began TLS on a port without TLS.
    pub fn tls_on_plaintext() -> Self {
        Self::new(
            Reason::TlsOnPlaintext,
            "the peer speaks TLS, and this address is plaintext; see --tls and --listen ADDR,tls=MODE",
        )
    }
}

impl From<&io::Error> for Refused {
    fn from(error: &io::Error) -> Self {
        use rustls::Error;
        let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) else {
            return Self::new(
                Reason::BrokenOff,
                format!("the connection ended in the TLS handshake: {error}"),
            );
        };
        match tls {
            Error::NoCertificatesPresented => {
                Self::new(Reason::NoCertificate, "the peer showed no certificate")
            }
            Error::InvalidCertificate(error) => Self::from(error),
            Error::InvalidMessage(_) => Self::new(
                Reason::Plaintext,
                format!("the peer does not speak TLS, and this address wants it: {tls}"),
            ),
            Error::AlertReceived(_) => Self::new(
                Reason::BrokenOff,
                format!("the peer ended the TLS handshake: {tls}"),
            ),
            other => Self::new(Reason::Protocol, other.to_string()),
        }
    }
}

impl From<&Certificate> for Refused {
    fn from(error: &Certificate) -> Self {
        match error {
            Certificate::NotValidYetContext { time, not_before } => Self::new(
                Reason::NotValidYet,
                format!(
                    "the peer's certificate is valid from {}, and the clock of this machine says {}: one of the two clocks is wrong",
                    shown(*not_before),
                    shown(*time)
                ),
            ),
            Certificate::ExpiredContext { time, not_after } => Self::new(
                Reason::Expired,
                format!(
                    "the peer's certificate was valid until {}, and the clock of this machine says {}",
                    shown(*not_after),
                    shown(*time)
                ),
            ),
            Certificate::NotValidYet => Self::new(Reason::NotValidYet, error.to_string()),
            Certificate::Expired => Self::new(Reason::Expired, error.to_string()),
            Certificate::UnknownIssuer => Self::new(
                Reason::UnknownIssuer,
                "none of the trusted authorities signed the peer's certificate",
            ),
            // What a certificate looks like whose issuer has the name of a trusted one but another key.
            Certificate::BadSignature => Self::new(
                Reason::UnknownIssuer,
                "the peer's certificate is not signed by the trusted authority that it names",
            ),
            Certificate::InvalidPurpose | Certificate::InvalidPurposeContext { .. } => Self::new(
                Reason::WrongUsage,
                "the peer's certificate is not for clients",
            ),
            Certificate::Other(other) => match other.0.downcast_ref::<NotAccepted>() {
                Some(why @ NotAccepted::NotForClients) => {
                    Self::new(Reason::WrongUsage, why.to_string())
                }
                Some(why) => Self::new(Reason::WrongName, why.to_string()),
                None => Self::new(Reason::BadCertificate, error.to_string()),
            },
            other => Self::new(Reason::BadCertificate, other.to_string()),
        }
    }
}

/// A client's error in words where rustls has only the name of a variant of ours.
pub(super) fn explained(error: io::Error) -> io::Error {
    let tls = error.get_ref().and_then(|e| e.downcast_ref());
    match tls {
        Some(rustls::Error::InvalidCertificate(Certificate::Other(other)))
            if other.0.is::<NotAccepted>() =>
        {
            io::Error::new(error.kind(), other.to_string())
        }
        _ => error,
    }
}

fn shown(time: UnixTime) -> WallTime {
    let ms = Duration::from_secs(time.as_secs()).as_millis();
    WallTime::from_unix_ms(u64::try_from(ms).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_the_future_names_both_clocks() {
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let refused = Refused::from(&Certificate::NotValidYetContext {
            time: at(1_700_000_000),
            not_before: at(1_800_000_000),
        });
        assert_eq!(refused.reason, Reason::NotValidYet);
        for clock in ["2023-11-14T22:13:20", "2027-01-15T08:00:00"] {
            assert!(refused.message.contains(clock), "{refused}");
        }
    }

    #[test]
    fn an_error_below_tls_is_a_connection_that_ended() {
        let refused = Refused::from(&io::Error::from(io::ErrorKind::UnexpectedEof));
        assert_eq!(refused.reason, Reason::BrokenOff);
    }
}
