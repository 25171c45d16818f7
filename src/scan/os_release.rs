//! os-release(5): which distribution this is.

use crate::root;
use crate::report::Distribution;
use std::path::Path;

/// Reads `etc/os-release`, else `usr/lib/os-release`; empty fields where there is neither.
pub(super) fn read(root: &Path) -> Distribution {
    ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| root::read_text(root, path).ok())
        .map(|text| parse(&text))
        .unwrap_or_default()
}

fn parse(text: &str) -> Distribution {
    let mut found = Distribution::default();
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once('=') else {
            continue;
        };
        let field = match name.trim_end() {
            "ID" => &mut found.id,
            "NAME" => &mut found.name,
            "VERSION" => &mut found.version,
            "VERSION_CODENAME" => &mut found.version_code_name,
            "VERSION_ID" => &mut found.version_id,
            "CPE_NAME" => &mut found.cpe,
            "PRETTY_NAME" => &mut found.pretty_name,
            _ => continue,
        };
        *field = unquote(value.trim());
    }
    found
}

/// Takes off shell quotes; a backslash inside double quotes keeps the next character.
fn unquote(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let mut plain = String::new();
    let mut chars = inner.unwrap_or(value).chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_shell_would() {
        let d = parse(
            "NAME=\"Red Hat Enterprise Linux\"\n# no\nID='rhel'\nVERSION_ID=\"9.4\"\n\
             PRETTY_NAME=\"a \\\"b\\\" \\$c\"\nCPE_NAME=cpe:/o:redhat:enterprise_linux:9::baseos\nBAD",
        );
        assert_eq!(d.name, "Red Hat Enterprise Linux");
        assert_eq!((d.id.as_str(), d.version_id.as_str()), ("rhel", "9.4"));
        assert_eq!(d.pretty_name, "a \"b\" $c");
        assert_eq!(d.cpe, "cpe:/o:redhat:enterprise_linux:9::baseos");
    }
}
