//! JSON as it usually comes, read without a general parser.
//!
//! Everything here either reads exactly what `serde_json` reads, or gives up: then `serde_json` reads the same text
//! again, and says what is wrong with it if anything is. So nothing unusual (an escape in a text, a member that
//! nobody knows and that is an object, a member that comes twice, any error) needs to be understood here.

use super::{CoreEntry, IdText, Labels, Metadata, NumberText};
use smol_str::SmolStr;
use std::ops::Range;

/// What a list of Core holds.
pub trait ListElement: Sized {
    /// Reads one at the place of `cursor`, which is then behind it; `None` gives up.
    fn quick(_cursor: &mut JsonCursor<'_>) -> Option<Self> {
        None
    }
}

/// Deepest nesting that is not given up.
const MAX_DEPTH: usize = 100;

/// Longest number that is read: one that fits into 64 bits, so that it is shown as it was written.
const MAX_DIGITS: usize = 18;

/// A place in a text.
#[derive(Clone, Copy)]
pub struct JsonCursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> JsonCursor<'a> {
    /// The beginning of a text.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Goes on behind `length` bytes.
    pub(super) fn skip(&mut self, length: usize) {
        self.at += length;
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Whether `byte` comes next, behind blanks; it is read then.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.blanks();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// Whether nothing but blanks is left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.blanks();
        self.at == self.text.len()
    }

    /// A text without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let begin = self.at;
        let bytes = self.text.as_bytes().get(begin..)?;
        let length = plain_length(bytes);
        if bytes.get(length) != Some(&b'"') {
            return None;
        }
        self.at = begin + length + 1;
        self.text.get(begin..begin + length)
    }

    /// Reads the members of an object; `member` reads the value of each.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Some(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            self.blanks();
            member(self, key)?;
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    fn literal(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    /// A whole number that is written as it is shown.
    fn integer(&mut self) -> Option<&'a str> {
        let begin = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let digits = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        let text = self.text.get(digits..self.at)?;
        let is_plain = (1..=MAX_DIGITS).contains(&text.len())
            && (!text.starts_with('0') || (text.len() == 1 && begin == digits));
        let goes_on = matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        (is_plain && !goes_on).then(|| self.text.get(begin..self.at))?
    }

    fn text(&mut self, member: &mut Member<SmolStr>) -> Option<()> {
        let text = match self.literal("null") {
            true => None,
            false => Some(SmolStr::new(self.string()?)),
        };
        member.set(text)
    }

    fn scalar(&mut self) -> Option<Option<SmolStr>> {
        Some(match self.peek()? {
            b'"' => Some(SmolStr::new(self.string()?)),
            b'n' if self.literal("null") => None,
            _ => Some(SmolStr::new(self.integer()?)),
        })
    }

    fn number(&mut self, member: &mut Member<NumberText>) -> Option<()> {
        let text = self.scalar()?;
        member.set(text.map(NumberText))
    }

    fn id(&mut self, member: &mut Member<IdText>) -> Option<()> {
        if self.literal("null") {
            return member.set(None);
        }
        let text = match self.peek()? {
            b'{' => {
                let mut id = Member::default();
                self.object(|cursor, key| match key {
                    "id" | "value" => cursor.text(&mut id),
                    _ => None,
                })?;
                id.value.unwrap_or_default()
            }
            _ => SmolStr::new(self.string()?),
        };
        member.set(Some(IdText(text)))
    }

    fn labels(&mut self, member: &mut Member<Labels>) -> Option<()> {
        let mut labels = Labels::default();
        match self.peek()? {
            b'n' if self.literal("null") => return member.set(None),
            b'{' => self.object(|cursor, key| {
                labels.keep(key, cursor.scalar()?);
                Some(())
            })?,
            _ => {
                self.expect(b'[')?;
                let mut more = !self.take(b']');
                while more {
                    let (mut key, mut value) = (Member::default(), Member::default());
                    self.blanks();
                    self.object(|cursor, name| match name {
                        "key" => key.set(Some(cursor.string()?)),
                        "value" => value.set(cursor.scalar()?),
                        _ => None,
                    })?;
                    labels.keep(key.value?, value.value);
                    more = self.take(b',');
                    if !more {
                        self.expect(b']')?;
                    }
                }
            }
        }
        member.set(Some(labels))
    }

    fn metadata(&mut self, member: &mut Member<Metadata>) -> Option<()> {
        if self.literal("null") {
            return member.set(None);
        }
        let (mut name, mut description) = (Member::default(), Member::default());
        let mut labels = Member::default();
        self.object(|cursor, key| match key {
            "name" => cursor.text(&mut name),
            "description" => cursor.text(&mut description),
            "labels" => cursor.labels(&mut labels),
            _ => cursor.value(),
        })?;
        member.set(Some(Metadata {
            name: name.value,
            description: description.value,
            labels: labels.value,
        }))
    }

    /// Any value, which is looked at only for whether it is one.
    fn value(&mut self) -> Option<()> {
        let mut depth = Vec::new();
        loop {
            self.blanks();
            match self.peek()? {
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    if !self.take(open + 2) {
                        if depth.len() == MAX_DEPTH {
                            return None;
                        }
                        depth.push(open + 2);
                        self.begin_element(open + 2)?;
                        continue;
                    }
                }
                b'"' => self.any_string()?,
                b't' if self.literal("true") => {}
                b'f' if self.literal("false") => {}
                b'n' if self.literal("null") => {}
                _ => self.any_number()?,
            }
            // Behind a value: the next one, or the end of what it is in.
            loop {
                let Some(close) = depth.last().copied() else {
                    return Some(());
                };
                if self.take(b',') {
                    self.begin_element(close)?;
                    break;
                }
                self.expect(close)?;
                depth.pop();
            }
        }
    }

    /// Reads the name of a member, where elements have one.
    fn begin_element(&mut self, close: u8) -> Option<()> {
        if close == b'}' {
            self.blanks();
            self.any_string()?;
            self.expect(b':')?;
        }
        Some(())
    }

    /// A text whose escapes are looked at, and not what they stand for.
    fn any_string(&mut self) -> Option<()> {
        if self.peek() != Some(b'"') {
            return None;
        }
        self.at += 1;
        loop {
            let bytes = self.text.as_bytes().get(self.at..)?;
            let length = plain_length(bytes);
            self.at += length + 1;
            match (bytes.get(length)?, bytes.get(length + 1)) {
                (b'"', _) => return Some(()),
                (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => {
                    self.at += 1;
                }
                (b'\\', Some(b'u')) => {
                    let digits = bytes.get(length + 2..length + 6)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    self.at += 5;
                }
                _ => return None,
            }
        }
    }

    fn any_number(&mut self) -> Option<()> {
        self.at += usize::from(self.peek() == Some(b'-'));
        let first = self.at;
        let is_zero = self.peek() == Some(b'0');
        if self.digits()? > 1 && is_zero {
            return None;
        }
        debug_assert!(first < self.at);
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Some(())
    }

    /// How many digits come, at least one.
    fn digits(&mut self) -> Option<usize> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > begin).then_some(self.at - begin)
    }

    /// Names and places of the members of a text that is one object, in their order; `None` gives up.
    pub fn members(mut self) -> Option<Vec<(&'a str, Range<usize>)>> {
        let mut members = Vec::new();
        self.object(|cursor, key| {
            let begin = cursor.at;
            cursor.value()?;
            members.push((key, begin..cursor.at));
            Some(())
        })?;
        self.is_at_end().then_some(members)
    }
}

/// Bytes before the first one that ends a text or is not plain in it; all of them if there is none.
fn plain_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    for word in bytes.chunks_exact(8) {
        let Ok(word) = word.try_into() else { break };
        let found = special_bytes(u64::from_le_bytes(word));
        if found != 0 {
            return length + usize::try_from(found.trailing_zeros() / 8).unwrap_or_default();
        }
        length += 8;
    }
    let rest = bytes.get(length..).unwrap_or_default().iter();
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    length + rest.clone().position(is_special).unwrap_or(rest.len())
}

/// The high bit of the first byte that is a quote, a backslash or a control character; what stands in the bytes
/// behind it says nothing.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = is_zero(word ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
    (quote | backslash | control) & (ONES << 7)
}

/// A member that may come once.
struct Member<T> {
    came: bool,
    value: Option<T>,
}

impl<T> Default for Member<T> {
    fn default() -> Self {
        Self {
            came: false,
            value: None,
        }
    }
}

impl<T> Member<T> {
    fn set(&mut self, value: Option<T>) -> Option<()> {
        let is_first = !std::mem::replace(&mut self.came, true);
        self.value = value;
        is_first.then_some(())
    }
}

/// Reads members into those of the same name.
macro_rules! members {
    ($cursor:ident, $($member:ident: $read:ident = $($name:literal)|+),+ $(,)?) => {{
        $(let mut $member = Member::default();)+
        $cursor.object(|cursor, key| match key {
            $($($name)|+ => cursor.$read(&mut $member),)+
            _ => cursor.value(),
        })?;
        CoreEntry { $($member: $member.value),+ }
    }};
}

impl ListElement for CoreEntry {
    fn quick(cursor: &mut JsonCursor<'_>) -> Option<Self> {
        cursor.blanks();
        Some(members! { cursor,
            id: id = "id",
            site_id: id = "site_id" | "siteId",
            rack_id: id = "rack_id" | "rackId",
            rack_profile_id: id = "rack_profile_id" | "rackProfileId",
            name: text = "name",
            description: text = "description",
            labels: labels = "labels",
            metadata: metadata = "metadata",
            bmc_mac_address: text = "bmc_mac_address" | "bmcMacAddress",
            bmc_ip_address: text = "bmc_ip_address" | "bmcIpAddress",
            ip_address: text = "ip_address" | "ipAddress",
            serial_number: text = "serial_number" | "chassis_serial_number" | "chassisSerialNumber"
                | "switch_serial_number" | "switchSerialNumber" | "shelf_serial_number" | "shelfSerialNumber",
            manufacturer: text = "manufacturer",
            model: text = "model",
            slot_id: number = "slot_id" | "slotId",
            tray_idx: number = "tray_idx" | "trayIdx",
            host_id: number = "host_id" | "hostId",
        })
    }
}

#[cfg(test)]
mod tests;
