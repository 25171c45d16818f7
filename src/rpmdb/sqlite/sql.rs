//! The words of an SQL statement, as far as the statement that made a table needs them.
//!
//! Comments count as space: both dnf write one after nearly every column of their tables. Quotes of
//! all four kinds hold together what stands in them, and a quote doubled stands for itself.
//! <https://sqlite.org/lang_keywords.html>, <https://sqlite.org/lang_comment.html>

use std::borrow::Cow;

/// A piece of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, a name, a number or an operator.
    Word(&'a str),
    /// A name or text in quotes, without them.
    Quoted(Cow<'a, str>),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
}

impl Token<'_> {
    /// Whether it is this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// The name, quoted or not.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Quoted(name) => Some(name),
            Self::Open | Self::Close | Self::Comma => None,
        }
    }
}

/// The tokens of `sql`; what does not end counts to the end.
pub(super) fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        rest = skip_space(rest);
        let first = rest.chars().next()?;
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '"' | '\'' | '`' => quoted(rest, first),
            '[' => quoted(rest, ']'),
            _ => word(rest),
        };
        rest = rest.get(length..).unwrap_or_default();
        Some(token)
    })
}

fn skip_space(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_start();
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            return rest;
        };
    }
}

/// The token at the start of `text`, and its length with the quotes.
fn quoted(text: &str, end: char) -> (Token<'_>, usize) {
    let mut doubled = false;
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != end {
            continue;
        }
        // In brackets nothing can be doubled.
        if end != ']' && chars.peek().is_some_and(|(_, next)| *next == end) {
            doubled = true;
            chars.next();
            continue;
        }
        let inner = text.get(1..at).unwrap_or_default();
        let inner = if doubled {
            Cow::Owned(inner.replace(&format!("{end}{end}"), &end.to_string()))
        } else {
            Cow::Borrowed(inner)
        };
        return (Token::Quoted(inner), at + 1);
    }
    let inner = text.get(1..).unwrap_or_default();
    (Token::Quoted(Cow::Borrowed(inner)), text.len())
}

fn word(text: &str) -> (Token<'_>, usize) {
    let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | '"' | '\'' | '`' | '[');
    let mut length = text.find(ends).unwrap_or(text.len());
    for comment in ["--", "/*"] {
        // The first character begins no comment, or it would have been skipped.
        length = text.find(comment).map_or(length, |at| at.min(length));
    }
    let word = text.get(..length).unwrap_or_default();
    (Token::Word(word), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> Vec<String> {
        tokens(sql)
            .map(|token| token.name().unwrap_or("?").to_owned())
            .collect()
    }

    #[test]
    fn comments_are_space_and_quotes_hold_together() {
        assert_eq!(
            names("a/* (,' */b -- \"x\n\"c \"\"d\"\"\"[e,f]`g``h`"),
            ["a", "b", "c \"d\"", "e,f", "g`h"]
        );
        assert_eq!(names("x(1,'it''s')"), ["x", "?", "1", "?", "it's", "?"]);
    }

    #[test]
    fn what_does_not_end_ends_with_the_text() {
        assert_eq!(names("a 'ß"), ["a", "ß"]);
        assert_eq!(names("a \"b\"\""), ["a", "b\"\""]);
        assert_eq!(names("a /* b"), ["a"]);
        assert_eq!(names("a -- b"), ["a"]);
        assert!(names("  ").is_empty());
    }
}
