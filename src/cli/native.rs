//! Arguments, variables and paths that are not UTF-8, in the text that flags and settings are made of.
//!
//! Each byte that is not part of valid UTF-8 becomes a character of its own in a private plane of
//! Unicode, and [`path`] makes it that byte again. Text that has such characters already is written byte by
//! byte in the same way, so that two different arguments never become the same text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// The character for byte 0; those of ASCII are never used.
const BASE: u32 = 0x0010_ff00;

/// The text for an argument or the value of a variable.
pub(super) fn text(native: &OsStr) -> String {
    let mut text = String::with_capacity(native.len());
    for chunk in native.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte(c) {
                None => text.push(c),
                Some(_) => text.extend(c.to_string().bytes().filter_map(character)),
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(character));
    }
    text
}

/// The path that this text stands for.
#[allow(clippy::unnecessary_wraps, reason = "as argh wants it")]
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(c.to_string().bytes()),
        }
    }
    Ok(OsString::from_vec(bytes).into())
}

/// The value of an environment variable, as a setting.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| text(&value))
}

/// The state directory that the environment names, for commands that have no settings.
pub(super) fn state_dir() -> Option<PathBuf> {
    let named = std::env::var_os("AFFERENT_STATE_DIR")?;
    (!named.is_empty()).then(|| named.into())
}

fn character(byte: u8) -> Option<char> {
    char::from_u32(BASE + u32::from(byte))
}

fn byte(c: char) -> Option<u8> {
    let byte = u32::from(c).checked_sub(BASE)?;
    u8::try_from(byte).ok().filter(|byte| *byte >= 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_text_is_left_as_it_is() {
        let name = "/srv/caf\u{e9} \u{1f980}";
        assert_eq!(text(OsStr::new(name)), name);
    }

    proptest! {
        #[test]
        fn every_path_comes_back(bytes: Vec<u8>, private in "[\u{10ff80}-\u{10ffff}a]{0,4}") {
            let bytes = [bytes.as_slice(), private.as_bytes(), b"\xe9"].concat();
            let given = OsStr::from_bytes(&bytes);
            prop_assert_eq!(path(&text(given)).unwrap().into_os_string(), given);
        }
    }
}
