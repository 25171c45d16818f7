//! CPE names: read from a 2.2 URI or a 2.3 formatted string, written as a 2.3 formatted string.
//!
//! ```text
//! cpe:/o:redhat:enterprise_linux:9::baseos                   a URI (6.1)
//! cpe:2.3:o:redhat:enterprise_linux:9:*:baseos:*:*:*:*:*     the same as a formatted string (6.2)
//! ```
//!
//! The names are those of NISTIR 7695, to which the section numbers refer. Scanner V4 reads CPEs
//! with claircore's `toolkit/types/cpe` and refuses a whole report for one that it cannot read.
//! Whatever is accepted here, claircore accepts too and writes as the same text; the text is well
//! formed by the standard's grammar, which later readers may enforce.
//!
//! - As claircore, beyond the standard: a 2.3 string may be shorter or have empty attributes,
//!   either of which means `*`; its unquoted punctuation is quoted; any language passes.
//! - As the standard, where claircore takes more: control characters, quoted letters, values of
//!   wildcards alone, letters outside ASCII whose lower case is ASCII are refused.
//! - Stricter than both: see [`is_ambiguous`].

use std::fmt;
use std::str::FromStr;

#[cfg(test)]
mod tests;

/// The wildcard name: matches everything.
pub const WILDCARD: &str = "cpe:2.3:*:*:*:*:*:*:*:*:*:*:*";

const URI: &str = "cpe:/";
const FORMATTED: &str = "cpe:2.3:";

/// In the order of the formatted string (6.2).
const ATTRIBUTES: [&str; 11] = [
    "part",
    "vendor",
    "product",
    "version",
    "update",
    "edition",
    "language",
    "sw_edition",
    "target_sw",
    "target_hw",
    "other",
];

/// A URI has the first attributes only, up to the language.
const URI_ATTRIBUTES: usize = 7;

const EDITION: usize = 5;

/// What a packed edition holds, in its order: `~edition~sw_edition~target_sw~target_hw~other`.
const PACKED: [usize; 5] = [EDITION, 7, 8, 9, 10];

/// Characters of a foreign name in a message, at most.
const EXCERPT: usize = 100;

/// A CPE name that binds, in the 2.3 form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpe(String);

/// Why text is not a CPE name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a CPE name, {problem}: {excerpt}")]
pub struct CpeError {
    problem: String,
    excerpt: String,
}

impl Cpe {
    /// The 2.3 formatted string, with all 11 attributes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cpe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Cpe {
    type Err = CpeError;

    fn from_str(text: &str) -> Result<Self, CpeError> {
        let name = if let Some(attributes) = text.strip_prefix(FORMATTED) {
            from_formatted(attributes)
        } else if let Some(attributes) = text.strip_prefix(URI) {
            from_uri(attributes)
        } else {
            Err(format!("it begins with neither {URI} nor {FORMATTED}"))
        };
        name.map(Self).map_err(|problem| CpeError {
            problem,
            excerpt: excerpt(text),
        })
    }
}

/// One character of a value (5.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Symbol {
    /// An ASCII letter, a digit or an underscore.
    Plain(char),
    /// Punctuation that stands for itself.
    Quoted(char),
    /// `?`, the wildcard for one character.
    One,
    /// `*`, the wildcard for any number of characters.
    Many,
}

/// Raw attributes, of which an empty one is ANY.
type Raw<'a> = [&'a str; ATTRIBUTES.len()];

fn from_uri(text: &str) -> Result<String, String> {
    let mut raw: Raw = Default::default();
    fill(&mut raw[..URI_ATTRIBUTES], text.split(':'))?;
    if let Some(packed) = raw[EDITION].strip_prefix('~') {
        for (at, field) in PACKED.into_iter().zip(packed.splitn(PACKED.len(), '~')) {
            raw[at] = field;
        }
    }
    bind(raw, uri_symbols)
}

fn from_formatted(text: &str) -> Result<String, String> {
    let mut raw: Raw = Default::default();
    fill(&mut raw, split_unquoted(text))?;
    if raw.iter().all(|value| value.is_empty()) {
        return Err("it has no attribute".into());
    }
    bind(
        raw.map(|v| if v == "*" { "" } else { v }),
        formatted_symbols,
    )
}

fn fill<'a>(raw: &mut [&'a str], values: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let most = raw.len();
    let mut slots = raw.iter_mut();
    for value in values {
        *slots
            .next()
            .ok_or_else(|| format!("it has more than {most} attributes"))? = value;
    }
    Ok(())
}

/// Splits at the colons that no backslash quotes.
fn split_unquoted(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        let separates = c == ':' && !quoted;
        quoted = c == '\\' && !quoted;
        separates
    })
}

fn bind(raw: Raw, symbols: fn(&str) -> Result<Vec<Symbol>, String>) -> Result<String, String> {
    let mut name = String::from("cpe:2.3");
    for (attribute, raw) in ATTRIBUTES.into_iter().zip(raw) {
        let value: String = match raw {
            "" => "*".into(),
            "-" => "-".into(),
            raw => symbols(raw)
                .and_then(|symbols| write(&symbols))
                .map_err(|problem| format!("its {attribute} {problem}"))?,
        };
        if attribute == "part" && !matches!(&*value, "a" | "o" | "h" | "*" | "-") {
            return Err("its part is none of a, o, h".into());
        }
        name.push(':');
        name.push_str(&value);
    }
    Ok(name)
}

/// A value of a URI is read in lower case, and percent-decoded (6.1.3).
fn uri_symbols(value: &str) -> Result<Vec<Symbol>, String> {
    let mut symbols = Vec::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        symbols.push(match c.to_ascii_lowercase() {
            '%' => percent_decoded(chars.next(), chars.next())?,
            c if is_plain(c) => Symbol::Plain(c),
            c @ ('.' | '-' | '~') => Symbol::Quoted(c),
            c => return Err(format!("has {c:?}, which a URI cannot have as it is")),
        });
    }
    Ok(symbols)
}

/// Only the two wildcards and the punctuation that must be encoded have a percent form (table 6-1).
fn percent_decoded(high: Option<char>, low: Option<char>) -> Result<Symbol, String> {
    let digit = |c: Option<char>| c.and_then(|c| c.to_digit(16));
    let code = digit(high).zip(digit(low)).map(|(h, l)| h * 16 + l);
    match code.and_then(char::from_u32) {
        Some('\x01') => Ok(Symbol::One),
        Some('\x02') => Ok(Symbol::Many),
        Some('.' | '-' | '_') | None => Err("has a percent sign that encodes nothing".into()),
        Some(c) if c.is_ascii_punctuation() => Ok(Symbol::Quoted(c)),
        Some(c) => Err(format!("has {c:?} percent-encoded")),
    }
}

/// Unquoted punctuation is taken as quoted (6.2.3).
fn formatted_symbols(value: &str) -> Result<Vec<Symbol>, String> {
    let mut symbols = Vec::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        symbols.push(match c {
            '\\' => match chars.next() {
                Some('_') => Symbol::Plain('_'),
                Some(c) if c.is_ascii_punctuation() => Symbol::Quoted(c),
                _ => return Err("has a backslash that quotes no punctuation".into()),
            },
            '?' => Symbol::One,
            '*' => Symbol::Many,
            c if is_plain(c) => Symbol::Plain(c),
            c if c.is_ascii_punctuation() => Symbol::Quoted(c),
            c => return Err(format!("has {c:?}")),
        });
    }
    Ok(symbols)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn write(symbols: &[Symbol]) -> Result<String, String> {
    check_wildcards(symbols)?;
    if symbols == [Symbol::Quoted('-')] {
        return Err("is a quoted hyphen alone".into());
    }
    if is_ambiguous(symbols) {
        return Err("has a backslash that readers understand differently".into());
    }
    let mut value = String::new();
    for symbol in symbols {
        match *symbol {
            Symbol::Plain(c) | Symbol::Quoted(c @ ('.' | '-')) => value.push(c),
            Symbol::Quoted(c) => value.extend(['\\', c]),
            Symbol::One => value.push('?'),
            Symbol::Many => value.push('*'),
        }
    }
    Ok(value)
}

/// Before and after the literal characters, of which there is at least one, stands a run of `?`, or
/// one `*`, or nothing (5.3.2).
fn check_wildcards(symbols: &[Symbol]) -> Result<(), String> {
    let is_literal = |s: &Symbol| matches!(s, Symbol::Plain(_) | Symbol::Quoted(_));
    let is_run = |run: &[Symbol]| run == [Symbol::Many] || run.iter().all(|s| *s == Symbol::One);
    let runs: Vec<&[Symbol]> = symbols.split(is_literal).collect();
    match &*runs {
        [_] => Err("has wildcards only".into()),
        [before, between @ .., after]
            if is_run(before) && is_run(after) && between.iter().all(|run| run.is_empty()) =>
        {
            Ok(())
        }
        _ => Err("has * or ? in a place where it cannot be".into()),
    }
}

/// Whether claircore could read the value as another than the standard does.
///
/// To claircore a backslash quotes the next character even if that backslash is itself quoted: `\\`
/// and a separator would be one value, `\\.` would lose a backslash. Only letters, digits and a
/// further quoted backslash are safe after it.
fn is_ambiguous(symbols: &[Symbol]) -> bool {
    let is_safe = |symbol: &Symbol| match symbol {
        Symbol::Plain(c) => c.is_ascii_alphanumeric(),
        symbol => *symbol == Symbol::Quoted('\\'),
    };
    symbols.iter().enumerate().any(|(at, symbol)| {
        *symbol == Symbol::Quoted('\\') && !symbols.get(at + 1).is_some_and(is_safe)
    })
}

/// Foreign text for a message: nothing in it controls a terminal, and it is short.
fn excerpt(text: &str) -> String {
    let visible = |c: char| match c {
        '\\' | '"' | '\'' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    let escaped: String = text.chars().take(EXCERPT + 1).map(visible).collect();
    if escaped.chars().count() <= EXCERPT {
        return escaped;
    }
    escaped
        .chars()
        .take(EXCERPT - 3)
        .chain("...".chars())
        .collect()
}
