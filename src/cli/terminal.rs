//! Text that is safe to show: what a guest sent can neither forge a line nor give orders to a terminal.
//!
//! Programs get every byte as it is. A terminal gets characters that it would obey, or that change the
//! order or the lines of a text, in a visible form.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// The text with every character made visible that is not one: `\x1b`, `\u{202e}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    // Nearly all text is plain ASCII, and all of its bytes are looked at together.
    let odd = text
        .bytes()
        .fold(false, |odd, byte| odd | !matches!(byte, b' '..=b'~'));
    if !odd || !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match u32::from(c) {
            _ if !is_unsafe(c) => shown.push(c),
            // Writing to a String cannot fail.
            code @ 0..0x100 => drop(write!(shown, "\\x{code:02x}")),
            code => drop(write!(shown, "\\u{{{code:x}}}")),
        }
    }
    Cow::Owned(shown)
}

/// Control characters, separators of lines, and what changes the direction of a text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes to a terminal: unsafe characters as `\u001b`, which JSON reads as the same character, and
/// bytes that are not UTF-8 as `\xhh`. Tabs and the ends of lines stay.
pub(super) struct Terminal<W> {
    inner: W,
    /// The beginning of a character whose end was not written yet.
    begun: Vec<u8>,
}

impl<W: Write> Terminal<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            begun: Vec::new(),
        }
    }

    fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut shown = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' | '\t' => shown.push(c),
                    _ if is_unsafe(c) => drop(write!(shown, "\\u{:04x}", u32::from(c))),
                    _ => shown.push(c),
                }
            }
            for byte in chunk.invalid() {
                let _ = write!(shown, "\\x{byte:02x}");
            }
        }
        self.inner.write_all(shown.as_bytes())
    }
}

impl<W: Write> Write for Terminal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&all) {
            // Not wrong so far: the rest may follow.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => all.len(),
        };
        self.begun = all.split_off(whole);
        self.show(&all)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.begun);
        self.show(&rest)?;
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_made_visible() {
        let text = "a\u{1b}[2J\n\u{9b}1m\u{2028}\u{202e}gpj.exe caf\u{e9}";
        assert_eq!(
            plain(text),
            "a\\x1b[2J\\x0a\\x9b1m\\u{2028}\\u{202e}gpj.exe caf\u{e9}"
        );
    }

    #[test]
    fn a_terminal_gets_whole_lines_without_orders_however_the_bytes_are_cut() {
        let bytes = "caf\u{e9}\t\u{9b}\u{1b}[1m\u{1f980}\n".as_bytes();
        for at in 0..=bytes.len() {
            let mut out = Vec::new();
            let mut terminal = Terminal::new(&mut out);
            let (first, rest) = bytes.split_at(at);
            terminal.write_all(first).unwrap();
            terminal.write_all(rest).unwrap();
            terminal.write_all(b"\xe9\xe2").unwrap();
            terminal.flush().unwrap();
            let shown = String::from_utf8(out).unwrap();
            assert_eq!(
                shown, "caf\u{e9}\t\\u009b\\u001b[1m\u{1f980}\n\\xe9\\xe2",
                "{at}"
            );
        }
    }

    #[test]
    fn json_on_a_terminal_means_the_same() {
        let mut out = Vec::new();
        let value = serde_json::json!({"name": "\u{9b}31m\u{202e}\u{7f}"});
        let mut terminal = Terminal::new(&mut out);
        serde_json::to_writer(&mut terminal, &value).unwrap();
        terminal.flush().unwrap();
        assert!(out.is_ascii());
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(read, value);
    }
}
