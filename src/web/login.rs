//! Logins of people: codes that work once, and the sessions that they open. Both are in memory only.

use super::secret::{Secret, SecretHash};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a code may be used.
pub(super) const CODE_LIFE: Duration = Duration::from_secs(5 * 60);

/// How long a session lasts.
pub(super) const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Codes that are not used yet; one more, and the oldest works no more.
const MOST_CODES: usize = 16;

/// Sessions; one more, and the oldest ends.
const MOST_SESSIONS: usize = 64;

/// A secret that holds until a time.
#[derive(Debug)]
struct Held {
    hash: SecretHash,
    until: Instant,
}

/// What is held, the oldest first.
#[derive(Debug, Default)]
struct HeldSecrets(VecDeque<Held>);

impl HeldSecrets {
    fn add(&mut self, secret: &Secret, until: Instant, most: usize) {
        while self.0.len() >= most {
            self.0.pop_front();
        }
        let hash = SecretHash::of(secret.text());
        self.0.push_back(Held { hash, until });
    }

    /// Where this text is, if it still holds.
    fn find(&mut self, text: &str, now: Instant) -> Option<usize> {
        self.0.retain(|held| held.until > now);
        let hash = SecretHash::of(text);
        // All are looked at, so that the time tells nothing of where it is.
        let found = self.0.iter().enumerate();
        found.fold(None, |found, (at, held)| match held.hash.is(&hash) {
            true => Some(at),
            false => found,
        })
    }
}

/// Codes and sessions.
#[derive(Debug, Default)]
pub(super) struct Logins {
    codes: HeldSecrets,
    sessions: HeldSecrets,
}

impl Logins {
    /// Lets this code open a session, once.
    pub(super) fn issue(&mut self, code: &Secret, now: Instant) {
        self.codes.add(code, now + CODE_LIFE, MOST_CODES);
    }

    /// Opens this session, if the code may; the code is used up.
    pub(super) fn redeem(&mut self, code: &str, session: &Secret, now: Instant) -> bool {
        let Some(at) = self.codes.find(code, now) else {
            return false;
        };
        self.codes.0.remove(at);
        self.sessions
            .add(session, now + SESSION_LIFE, MOST_SESSIONS);
        true
    }

    /// Until when the session lasts that this is the secret of.
    pub(super) fn session(&mut self, text: &str, now: Instant) -> Option<Instant> {
        let at = self.sessions.find(text, now)?;
        self.sessions.0.get(at).map(|held| held.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: u8) -> Secret {
        Secret::of(&[n; 32])
    }

    fn start() -> Instant {
        crate::clock::now()
    }

    #[test]
    fn a_code_opens_one_session_and_no_second_one() {
        let (mut logins, now) = (Logins::default(), start());
        logins.issue(&secret(1), now);
        assert!(!logins.redeem(secret(2).text(), &secret(3), now));
        assert!(!logins.redeem("", &secret(3), now));
        assert!(logins.redeem(secret(1).text(), &secret(3), now));
        assert!(!logins.redeem(secret(1).text(), &secret(4), now));
        assert_eq!(
            logins.session(secret(3).text(), now),
            Some(now + SESSION_LIFE)
        );
        assert_eq!(logins.session(secret(4).text(), now), None);
        assert_eq!(
            logins.session(secret(1).text(), now),
            None,
            "a code is no session"
        );
    }

    #[test]
    fn codes_and_sessions_end_in_time() {
        let (mut logins, now) = (Logins::default(), start());
        logins.issue(&secret(1), now);
        logins.issue(&secret(2), now);
        let just = Duration::from_millis(1);
        assert!(logins.redeem(secret(1).text(), &secret(3), now + CODE_LIFE - just));
        assert!(!logins.redeem(secret(2).text(), &secret(4), now + CODE_LIFE));
        let end = now + CODE_LIFE - just + SESSION_LIFE;
        assert!(logins.session(secret(3).text(), end - just).is_some());
        assert!(logins.session(secret(3).text(), end).is_none());
    }

    #[test]
    fn there_are_few_of_both_and_the_newest_work() {
        let (mut logins, now) = (Logins::default(), start());
        for n in 0..100 {
            logins.issue(&secret(n), now);
        }
        assert_eq!(logins.codes.0.len(), MOST_CODES);
        assert!(!logins.redeem(secret(83).text(), &secret(200), now));
        assert!(logins.redeem(secret(84).text(), &secret(200), now));
        for n in 0..100 {
            logins.issue(&secret(n), now);
            assert!(logins.redeem(secret(n).text(), &secret(n + 100), now));
        }
        assert_eq!(logins.sessions.0.len(), MOST_SESSIONS);
        assert!(logins.session(secret(135).text(), now).is_none());
        assert!(logins.session(secret(136).text(), now).is_some());
    }
}
