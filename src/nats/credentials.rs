//! Who we are, from a file of secrets: read for every connection, never shown.
//!
//! | The file holds | and is used as |
//! |---|---|
//! | a `.creds` file, as `nsc` writes it | the JWT in it, and a signature by the key in it |
//! | a seed, `SU...` | an NKey |
//! | anything else, with a user in the address | that user's password |
//! | anything else | a token |

use super::NatsError;
use super::nkey::UserKey;
use serde_json::{Map, Value};
use std::io::{self, Read};
use std::path::Path;

/// Longest file of secrets that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What shows who we are.
pub(super) enum Credentials {
    /// Nothing does.
    Nobody,
    /// A secret that all clients share.
    Token(String),
    /// A user and its password.
    Password(String, String),
    /// A key that the server knows.
    Key(UserKey),
    /// A key, and what an account says about its owner.
    Jwt(String, UserKey),
}

impl Credentials {
    /// Reads them, if there is a file.
    pub(super) fn load(path: Option<&Path>, user: Option<&str>) -> Result<Self, NatsError> {
        let Some(path) = path else {
            return match user {
                Some(_) => Err(NatsError::Denied(
                    "a user in the address, and no file with the password: name it with --token-file".into(),
                )),
                None => Ok(Self::Nobody),
            };
        };
        let wrong = |what: &str| NatsError::Denied(format!("{}: {what}", path.display()));
        let text = read(path).map_err(|error| wrong(&error.to_string()))?;
        Self::parse(&text, user).map_err(wrong)
    }

    fn parse(text: &str, user: Option<&str>) -> Result<Self, &'static str> {
        let secret = text.trim();
        if secret.contains("BEGIN NATS USER JWT") {
            let jwt = block(secret, "NATS USER JWT").ok_or("holds no whole JWT")?;
            let seed = block(secret, "USER NKEY SEED").and_then(UserKey::from_seed);
            return Ok(Self::Jwt(
                jwt.to_owned(),
                seed.ok_or("holds no user's seed")?,
            ));
        }
        if secret.is_empty() || secret.contains(char::is_control) {
            return Err("holds no token, password, seed or credentials");
        }
        Ok(match (UserKey::from_seed(secret), user) {
            (Some(key), _) => Self::Key(key),
            (None, Some(user)) => Self::Password(user.to_owned(), secret.to_owned()),
            (None, None) => Self::Token(secret.to_owned()),
        })
    }

    /// Adds to CONNECT what shows who we are. `nonce` is what the server wants signed.
    pub(super) fn add_to(&self, connect: &mut Map<String, Value>, nonce: &str) -> Option<()> {
        let mut set = |name: &str, value: &str| connect.insert(name.into(), value.into());
        match self {
            Self::Nobody => {}
            Self::Token(token) => drop(set("auth_token", token)),
            Self::Password(user, password) => {
                set("user", user);
                set("pass", password);
            }
            Self::Key(key) => {
                set("nkey", &key.public()?);
                set("sig", &key.sign(nonce)?);
            }
            Self::Jwt(jwt, key) => {
                set("jwt", jwt);
                set("sig", &key.sign(nonce)?);
            }
        }
        Some(())
    }
}

/// What stands between `-----BEGIN name-----` and the next dashes.
fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("BEGIN {name}"))?;
    let content = after.trim_start_matches('-');
    let (content, _) = content.split_once("---")?;
    let content = content.trim();
    (!content.is_empty() && content.bytes().all(|b| b.is_ascii_graphic())).then_some(content)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "SUAC4QSYFQ3RBBOZYZIHCJ52AZYH7XYOZX6P7ROBEEUNFQ3S6CFXEHXBUE";

    #[test]
    fn each_kind_of_file_is_told_from_the_others() {
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n\
             *** IMPORTANT ***\n\n-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        for (file, user, fields) in [
            ("s3cret\n", None, &["auth_token"][..]),
            ("s3cret\n", Some("u"), &["pass", "user"]),
            (SEED, None, &["nkey", "sig"]),
            (&creds, None, &["jwt", "sig"]),
        ] {
            let mut connect = Map::new();
            let credentials = Credentials::parse(file, user).unwrap_or(Credentials::Nobody);
            credentials.add_to(&mut connect, "nonce").unwrap();
            assert_eq!(connect.keys().collect::<Vec<_>>(), fields);
            if let Some(jwt) = connect.get("jwt") {
                assert_eq!(jwt, "eyJ0.eyJq.c2ln");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_said_and_not_repeated() {
        for text in [
            "",
            "\n",
            "s3c\nret",
            "-----BEGIN NATS USER JWT-----\ns3cret",
        ] {
            let error = Credentials::parse(text, None).err().unwrap();
            assert!(
                error.starts_with("holds no") && !error.contains("s3c"),
                "{error}"
            );
        }
    }
}
