//! The syntax of a CPE name as a 2.3 formatted string: the grammar of NISTIR 7695, section 6.2.2.
//!
//! ```text
//! name     "cpe:2.3:" part 10*10(":" value)
//! part     "a" | "o" | "h" | "*" | "-"
//! value    "*" | "-" | [ "*" | 1*"?" ] 1*(plain | quoted) [ "*" | 1*"?" ]
//! plain    a letter, a digit, "-", "." or "_"
//! quoted   "\" and any other punctuation
//! ```
//! The language is taken as any value: no reader looks at it.

/// Why a text is none.
pub fn check(text: &str) -> Result<(), String> {
    let attributes = text
        .strip_prefix("cpe:2.3:")
        .ok_or("it does not begin with cpe:2.3:")?;
    let values = split(attributes);
    if values.len() != 11 {
        return Err(format!("it has {} attributes", values.len()));
    }
    if !["a", "o", "h", "*", "-"].contains(&values[0].as_str()) {
        return Err(format!("its part is {:?}", values[0]));
    }
    match values.iter().find(|value| !is_value(value)) {
        Some(value) => Err(format!("an attribute is {value:?}")),
        None => Ok(()),
    }
}

/// Cuts at the colons without a backslash before them.
fn split(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == ':' {
            values.push(String::new());
            continue;
        }
        let value = values.last_mut().unwrap();
        value.push(c);
        if c == '\\' {
            value.extend(chars.next());
        }
    }
    values
}

fn is_value(value: &str) -> bool {
    if value == "*" || value == "-" {
        return true;
    }
    let rest = match value.strip_prefix('*') {
        Some(rest) => rest,
        None => value.trim_start_matches('?'),
    };
    let mut chars = rest.chars().peekable();
    let mut literals = 0;
    loop {
        match chars.peek() {
            Some('\\') => {
                chars.next();
                let is_quotable = |c: char| c.is_ascii_punctuation() && !"-._".contains(c);
                if !chars.next().is_some_and(is_quotable) {
                    return false;
                }
            }
            Some(c) if c.is_ascii_alphanumeric() || "-._".contains(*c) => {
                chars.next();
            }
            _ => break,
        }
        literals += 1;
    }
    let end: String = chars.collect();
    literals > 0 && (end.is_empty() || end == "*" || end.chars().all(|c| c == '?'))
}

#[test]
fn the_grammar_is_that_of_the_standard() {
    for good in [
        "cpe:2.3:*:*:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:redhat:enterprise_linux:9:*:baseos:*:*:*:*:*",
        "cpe:2.3:a:b:c\\:d:1.2-3:-:*:*:*:*:*:*",
        "cpe:2.3:a:*b:??c?:*d*:\\*:*:*:*:*:*:\\\\",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "cpe:/o:redhat:enterprise_linux:9",
        "cpe:2.3:o:a:b:c",
        "cpe:2.3:*:*:*:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:x:*:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o::*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:a b:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:a+b:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:a*b:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:**:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:?:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:*?a:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:\\a:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:\\_:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:é:*:*:*:*:*:*:*:*:*",
        "cpe:2.3:o:a\\:*:*:*:*:*:*:*:*:*",
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
}
