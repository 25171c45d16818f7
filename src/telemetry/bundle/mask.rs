//! Masks secrets in text that leaves the machine.
//!
//! Two kinds are found: literally, what is in the token files and addresses of a configuration; and by
//! form, what stands where secrets stand (user and query of a URL, headers of authorisation, values of
//! names such as `password`, JSON web tokens, seeds of NATS). A mask hides rather too much than too little.

use serde_json::{Map, Value};

/// Stands for what is hidden.
const MASKED: &str = "***";

/// Shortest secret that is searched for literally, in bytes: shorter text is found everywhere.
const SHORTEST: usize = 4;

/// Shortest word of a file with several that is a secret of its own, in bytes.
const SHORTEST_WORD: usize = 16;

/// Beginning of a secret by which it is found, in characters: messages are cut at a length.
const CUT: usize = 8;

/// Headers whose whole value is a secret.
const HEADERS: [&str; 3] = ["authorization", "set-cookie", "cookie"];

/// Schemes of authorisation; the next word is a secret.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// Endings of names whose value is a secret.
const NAMES: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "pass",
    "secret",
    "token",
    "jwt",
    "nkey",
    "seed",
    "api-key",
    "api_key",
    "apikey",
    "access-key",
    "access_key",
];

/// What is hidden.
#[derive(Debug, Default)]
pub(super) struct Mask {
    /// Longest first.
    secrets: Vec<String>,
}

impl Mask {
    /// Hides this text too, wherever it stands: also as the log quotes it, and as it was quoted before.
    fn hide(&mut self, secret: &str) {
        let mut form = secret.to_owned();
        for _ in 0..3 {
            if form.len() >= SHORTEST && !self.secrets.contains(&form) {
                self.secrets.push(form.clone());
            }
            form = form.escape_debug().to_string();
        }
        self.secrets
            .sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Hides what a file of secrets holds: all of it, its lines, and its long words.
    pub(super) fn hide_content(&mut self, content: &str) {
        self.hide(content.trim());
        for line in content.lines() {
            self.hide(line.trim());
        }
        for word in content.split_whitespace() {
            if word.len() >= SHORTEST_WORD {
                self.hide(word);
            }
        }
    }

    /// Hides the password, or a user without one, and the values of the query of a URL.
    pub(super) fn hide_address(&mut self, address: &str) {
        let Some((_, rest)) = address.split_once("://") else {
            return;
        };
        let (head, query) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
        if let Some((user, _)) = head.rsplit_once('@') {
            let password = user.split_once(':').map_or(user, |(_, password)| password);
            self.hide(password);
            self.hide(&decoded(password));
        }
        for pair in query.split(['&', '#', '?']) {
            let value = match pair.split_once('=') {
                Some(("stream" | "create", _)) => continue,
                Some((_, value)) => value,
                None => pair,
            };
            self.hide(value);
            self.hide(&decoded(value));
        }
    }

    /// The same JSON with every secret masked.
    pub(super) fn json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| {
                    let value = match value {
                        Value::String(_) if is_secret_name(&name) => MASKED.into(),
                        other => self.json(other),
                    };
                    (self.text(&name), value)
                });
                Value::Object(fields.collect::<Map<_, _>>())
            }
            other => other,
        }
    }

    /// The same text with every secret masked.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = without(&text, secret);
        }
        let lines = text.split('\n').map(line);
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Part of an address without its percent signs, as a server sees it.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text without this secret, and without its beginning where a message was cut within it.
fn without(text: &str, secret: &str) -> String {
    let start: String = secret.chars().take(CUT).collect();
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&start) {
        let (before, found) = rest.split_at(at);
        let same = found
            .chars()
            .zip(secret.chars())
            .take_while(|(a, b)| a == b);
        let length: usize = same.map(|(c, _)| c.len_utf8()).sum();
        masked.push_str(before);
        masked.push_str(MASKED);
        rest = &found[length..];
    }
    masked + rest
}

/// One line, masked by form.
fn line(line: &str) -> String {
    let line = without_headers(line);
    let line = without_addresses(&line);
    let line = without_values(&line);
    without_words(&line)
}

/// Nothing after the name of a header that authorises.
fn without_headers(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let ends = HEADERS.iter().filter_map(|header| {
        let at = lower.match_indices(header).find_map(|(at, _)| {
            let after = at + header.len();
            separator(&lower[after..]).map(|length| after + length)
        });
        at.filter(|at| *at < line.len())
    });
    match ends.min() {
        Some(end) => format!("{}{MASKED}", &line[..end]),
        None => line.to_owned(),
    }
}

/// Bytes of `": "`, `=` and the like, at the beginning of `text`.
fn separator(text: &str) -> Option<usize> {
    let rest = text.trim_start_matches(['"', '\'', '\\', ' ']);
    let rest = rest.strip_prefix([':', '='])?;
    Some(text.len() - rest.trim_start_matches(' ').len())
}

/// Addresses without user and query.
fn without_addresses(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        masked.push_str(before);
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
        let (address, after) = address.split_at(address.find(is_end).unwrap_or(address.len()));
        masked.push_str(&address_without_secrets(address));
        rest = after;
    }
    masked + rest
}

/// What follows `://`.
fn address_without_secrets(address: &str) -> String {
    // A password that was not escaped may hold any character itself.
    let (user, address) = match address.rfind('@') {
        Some(at) => ("***@", &address[at + 1..]),
        None => ("", address),
    };
    match address.find(['?', '#']) {
        Some(at) => format!("{user}{}{MASKED}", &address[..=at]),
        None => format!("{user}{address}"),
    }
}

/// Values of names that are those of secrets.
fn without_values(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut masked = String::with_capacity(line.len());
    let mut done = 0;
    for (at, _) in lower.match_indices([':', '=']) {
        if at < done {
            continue;
        }
        let name = lower[..at].trim_end_matches(['"', '\'', '\\', ' ']);
        let start = at + separator(&lower[at..]).unwrap_or(1);
        let (value, end) = value(line, start);
        if is_secret_name(name) && !value.is_empty() {
            masked.push_str(&line[done..end - value.len()]);
            masked.push_str(MASKED);
            done = end;
        }
    }
    masked + &line[done..]
}

/// The value that begins at `start`, without its quotes, and where it ends.
fn value(line: &str, start: usize) -> (&str, usize) {
    let text = &line[start..];
    let inner = text.trim_start_matches('\\');
    let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (from, end) = match quote {
        Some(quote) => {
            let from = text.len() - inner.len() + 1;
            (from, text[from..].find(quote).map(|length| from + length))
        }
        None => {
            let is_end = |c: char| c.is_whitespace() || matches!(c, '&' | ',' | ';' | '"' | '}');
            (0, text.find(is_end))
        }
    };
    let end = end.unwrap_or(text.len());
    (&text[from..end], start + end)
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|ending| name.ends_with(ending))
}

/// Words that are secrets by their form, or by the word before.
fn without_words(line: &str) -> String {
    let mut is_after_scheme = false;
    let words = line.split(' ').map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_secret = (is_after_scheme && !word.is_empty()) || is_credential(word);
        if !word.is_empty() {
            is_after_scheme = SCHEMES.iter().any(|s| bare.eq_ignore_ascii_case(s));
        }
        if is_secret { MASKED } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether a JSON web token or a seed of NATS is in this word.
fn is_credential(word: &str) -> bool {
    let parts = word.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'));
    parts.into_iter().any(|part| {
        let is_token = part.starts_with("eyJ") && part.len() >= 24;
        let is_base32 = |b: u8| b.is_ascii_uppercase() || matches!(b, b'2'..=b'7');
        let is_seed = part.starts_with('S') && part.len() == 58 && part.bytes().all(is_base32);
        is_token || is_seed
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_stands_where_secrets_stand_is_masked_and_the_rest_is_left() {
        let seed = format!("S{}", "A".repeat(57));
        for (text, expected) in [
            (
                "http://u:p@h:1/a?token=x#y: refused",
                "http://***@h:1/a?*** refused",
            ),
            (
                "nats://u:p?w@h and tls://t@h",
                "nats://***@h and tls://***@h",
            ),
            ("https://h/a b", "https://h/a b"),
            ("> Authorization: Basic eHh4 x", "> Authorization: ***"),
            (
                r#"{"authorization": "Bearer x"}"#,
                r#"{"authorization": ***"#,
            ),
            ("Set-Cookie: sid=1", "Set-Cookie: ***"),
            ("said Bearer abc: no", "said Bearer *** no"),
            ("password=\"a b\" next=1", "password=\"***\" next=1"),
            ("X-Api-Key: abc, x", "X-Api-Key: ***, x"),
            (r#"x {\"token\":\"abc\"} y"#, r#"x {\"token\":\"***"} y"#),
            ("token_file = \"/etc/t\"", "token_file = \"/etc/t\""),
            ("token-file=/etc/t", "token-file=/etc/t"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.e30.abcdef x", "jwt *** x"),
            (&format!("seed, {seed}"), "seed, ***"),
        ] {
            assert_eq!(Mask::default().text(text), expected);
        }
    }

    #[test]
    fn what_is_in_token_files_and_addresses_is_masked_wherever_it_stands() {
        let mut mask = Mask::default();
        mask.hide_content("first word\nanother-very-long-word in-a-file\n");
        mask.hide_address("nats://user:pa55@h?stream=REPORTS");
        mask.hide_address("http://h/x?key=quer1");
        mask.hide_address("http://h/x?a%20b%2Fc");
        mask.hide_content("qu\"ot\\ed");
        for secret in [
            "first word",
            "another-very-long-word",
            "pa55",
            "quer1",
            "a%20b%2Fc",
            "a b/c",
            r#"qu"ot\ed"#,
            r#"qu\"ot\\ed"#,
            r#"qu\\\"ot\\\\ed"#,
        ] {
            assert_eq!(mask.text(&format!("a{secret}b\n")), "a***b\n");
        }
        assert_eq!(mask.text("cut in another-very-l\""), "cut in ***\"");
        assert_eq!(mask.text("user REPORTS"), "user REPORTS");
        let value = json!({"a": ["pa55"], "password": "x", "n": 1, "xquer1": null});
        let expected = json!({"a": ["***"], "password": "***", "n": 1, "x***": null});
        assert_eq!(mask.json(value), expected);
    }

    proptest! {
        #[test]
        fn any_text_can_be_masked(text in "(\\PC|://|[@?=:\"' \\\\]|token|authorization|basic){0,12}") {
            let mut mask = Mask::default();
            mask.hide_address(&text);
            mask.text(&text);
        }

        #[test]
        fn no_user_or_query_of_an_address_is_left(
            user in "[a-z0-9]{3}~[a-z0-9/?#:%]{0,8}", query in "~[a-z0-9=&%@]{3,8}",
        ) {
            let text = format!("cannot reach http://{user}@host/path?{query}: refused");
            let masked = Mask::default().text(&text);
            prop_assert!(!masked.contains('~'), "{}", masked);
        }
    }
}
