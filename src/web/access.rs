//! Who may ask: people with a session, and programs with the token.

use super::host::HostPolicy;
use super::login::{Logins, SESSION_LIFE};
use super::secret::Secret;
use super::token::TokenFile;
use super::{WebListen, WebName};
use crate::clock;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Digits of the process in the name of the cookie: cookies do not tell ports apart, and a browser may have tunnels
/// to many sensors.
const DIGITS: usize = 8;

/// Who may ask, and by which names.
pub(super) struct Access {
    pub(super) hosts: HostPolicy,
    token: Option<TokenFile>,
    logins: Mutex<Logins>,
    cookie: String,
    is_secure: bool,
}

impl Access {
    /// # Errors
    /// The file of the token cannot be used.
    pub(super) fn new(name: WebName, config: &WebListen) -> Result<Self, String> {
        let token = config.token_file.as_deref().map(TokenFile::load);
        let token = token.transpose();
        let process = Secret::random()?;
        let digits = process.text().get(..DIGITS).unwrap_or_default();
        Ok(Self {
            hosts: HostPolicy::new(&config.hosts),
            token: token.map_err(|error| format!("{}: {error}", name.flag("token-file")))?,
            logins: Mutex::default(),
            cookie: format!("afferent_{}_{digits}", name.command),
            is_secure: config.tls.is_some(),
        })
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A code that opens a session, once.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn issue(&self) -> Result<Secret, String> {
        let code = Secret::random()?;
        self.logins().issue(&code, clock::now());
        Ok(code)
    }

    /// The header that gives a browser its session, for a code; `None`: the code does not work.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn redeem(&self, code: &str) -> Result<Option<String>, String> {
        let session = Secret::random()?;
        if !self.logins().redeem(code, &session, clock::now()) {
            return Ok(None);
        }
        let secure = if self.is_secure { "; Secure" } else { "" };
        Ok(Some(format!(
            "{}={}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}",
            self.cookie,
            session.text(),
            SESSION_LIFE.as_secs()
        )))
    }

    /// Until when a request with these headers has access; `None`: it has none.
    pub(super) fn until(&self, headers: &HeaderMap) -> Option<Instant> {
        let now = clock::now();
        if let Some(shown) = bearer(headers) {
            let is_right = self.token.as_ref().is_some_and(|token| token.is(shown));
            // A token that is taken away ends a stream at the next one's begin.
            return is_right.then(|| now + SESSION_LIFE);
        }
        let session = cookies(headers).find(|(name, _)| *name == self.cookie)?.1;
        self.logins().session(session, now)
    }

    /// Why programs have no access, although a file is named.
    pub(super) fn trouble(&self) -> Option<String> {
        self.token.as_ref().and_then(TokenFile::trouble)
    }
}

/// The token that a program shows.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The cookies of a browser.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).into_iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn access(is_secure: bool) -> Access {
        let mut access = Access::new(
            WebName {
                command: "fleet",
                service: "sensor",
            },
            &WebListen {
                address: "localhost:1".parse().unwrap(),
                tls: None,
                token_file: None,
                hosts: Vec::new(),
            },
        )
        .unwrap();
        access.is_secure = is_secure;
        access
    }

    fn with(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_cookie_is_for_this_server_alone_and_no_script_reads_it() {
        for is_secure in [false, true] {
            let access = access(is_secure);
            let code = access.issue().unwrap();
            let cookie = access.redeem(code.text()).unwrap().unwrap();
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            for attribute in ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"] {
                assert!(attributes.contains(attribute), "{attributes}");
            }
            assert_eq!(attributes.ends_with("; Secure"), is_secure);
            assert!(!attributes.contains("Domain"));
            assert!(
                access
                    .until(&with(COOKIE, &format!("a=b; {pair}")))
                    .is_some()
            );
            let (name, value) = pair.split_once('=').unwrap();
            assert!(
                access
                    .until(&with(COOKIE, &format!("{name}={}", &value[1..])))
                    .is_none()
            );
            assert!(access.until(&with(COOKIE, &format!("x{pair}"))).is_none());
            assert!(access.until(&HeaderMap::new()).is_none());
            // A session is no token.
            assert!(
                access
                    .until(&with(AUTHORIZATION, &format!("Bearer {value}")))
                    .is_none()
            );
        }
    }

    #[test]
    fn two_processes_have_cookies_of_their_own() {
        assert_ne!(access(false).cookie, access(false).cookie);
    }
}
