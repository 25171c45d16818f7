//! Tables of names that bind and names that do not; properties of whatever binds.

use super::*;
use proptest::prelude::*;

fn read(text: &str) -> Result<String, String> {
    text.parse::<Cpe>()
        .map(|cpe| cpe.to_string())
        .map_err(|error| error.to_string())
}

#[test]
fn names_are_written_in_the_2_3_form() {
    for (text, attributes) in [
        // As os-release files and the repository mapping have them.
        (
            "cpe:/o:redhat:enterprise_linux:9::baseos",
            "o:redhat:enterprise_linux:9:*:baseos:*:*:*:*:*",
        ),
        (
            "cpe:/a:redhat:enterprise_linux:8::appstream",
            "a:redhat:enterprise_linux:8:*:appstream:*:*:*:*:*",
        ),
        (
            "cpe:2.3:o:amazon:amazon_linux:2023",
            "o:amazon:amazon_linux:2023:*:*:*:*:*:*:*",
        ),
        (
            "cpe:/o:opensuse:leap:15.5",
            "o:opensuse:leap:15.5:*:*:*:*:*:*:*",
        ),
        (
            "cpe:/o:fedoraproject:fedora:42",
            "o:fedoraproject:fedora:42:*:*:*:*:*:*:*",
        ),
        ("cpe:/o:suse:sles:15:sp5", "o:suse:sles:15:sp5:*:*:*:*:*:*"),
        (
            "cpe:/o:centos:centos:9-stream",
            "o:centos:centos:9-stream:*:*:*:*:*:*:*",
        ),
        // Empty attributes, in front, in the middle, at the end.
        ("cpe:/", "*:*:*:*:*:*:*:*:*:*:*"),
        ("cpe:/o:redhat:::::", "o:redhat:*:*:*:*:*:*:*:*:*"),
        ("cpe:2.3::redhat::9:", "*:redhat:*:9:*:*:*:*:*:*:*"),
        ("cpe:2.3:*", "*:*:*:*:*:*:*:*:*:*:*"),
        // NA, which a hyphen in a value is not.
        ("cpe:/-:a:-:--:1-2", "-:a:-:--:1-2:*:*:*:*:*:*"),
        ("cpe:2.3:o:-:x:--", "o:-:x:--:*:*:*:*:*:*:*"),
        // A URI is lower case, a 2.3 string as it is.
        ("cpe:/O:RedHat:X%2B", "o:redhat:x\\+:*:*:*:*:*:*:*:*"),
        ("cpe:2.3:o:RedHat", "o:RedHat:*:*:*:*:*:*:*:*:*"),
        // A packed edition, whole, short, and with a tilde too many.
        (
            "cpe:/a:hp:insight:7.4.0.1570::~~online~win2003~x64~:en-us",
            "a:hp:insight:7.4.0.1570:*:*:en-us:online:win2003:x64:*",
        ),
        ("cpe:/a:b:c:d:e:~f~-", "a:b:c:d:e:f:*:-:*:*:*"),
        ("cpe:/a:b:c:d:e:~f~g~h~i~j~k", "a:b:c:d:e:f:*:g:h:i:j\\~k"),
        ("cpe:/a:b~c:d:e:f:g~h", "a:b\\~c:d:e:f:g\\~h:*:*:*:*:*"),
        // Percent forms.
        ("cpe:/a:x:8.%2a:sp%3f", "a:x:8.\\*:sp\\?:*:*:*:*:*:*:*"),
        ("cpe:/a:x:8.%02:%01%01sp%01", "a:x:8.*:??sp?:*:*:*:*:*:*:*"),
        (
            "cpe:/a:foo%5cbar%3a%7E",
            "a:foo\\\\bar\\:\\~:*:*:*:*:*:*:*:*:*",
        ),
        // Quoting in 2.3 strings.
        (
            "cpe:2.3:a:b\\:c:d\\.e\\-f\\_g",
            "a:b\\:c:d.e-f_g:*:*:*:*:*:*:*:*",
        ),
        (
            "cpe:2.3:a:big$money:c++",
            "a:big\\$money:c\\+\\+:*:*:*:*:*:*:*:*",
        ),
        ("cpe:2.3:a:a\\\\\\\\b", "a:a\\\\\\\\b:*:*:*:*:*:*:*:*:*"),
        (
            "cpe:2.3:a:*b*:?c??:\\*:\\?",
            "a:*b*:?c??:\\*:\\?:*:*:*:*:*:*",
        ),
    ] {
        assert_eq!(read(text), Ok(format!("cpe:2.3:{attributes}")), "{text}");
    }
    assert_eq!(read(WILDCARD), Ok(WILDCARD.into()));
}

#[test]
fn what_does_not_bind_is_refused_with_the_reason() {
    for (text, problem) in [
        ("", "begins with neither"),
        ("redhat", "begins with neither"),
        ("CPE:/o:redhat", "begins with neither"),
        ("cpe:2.2:o:redhat", "begins with neither"),
        (" cpe:/o:redhat", "begins with neither"),
        ("cpe:2.3:", "no attribute"),
        ("cpe:2.3::::::::::", "no attribute"),
        ("cpe:/x:redhat", "part is none"),
        ("cpe:/os:redhat", "part is none"),
        ("cpe:2.3:O:redhat", "part is none"),
        ("cpe:/o:some thing:x:1", "vendor has ' '"),
        ("cpe:2.3:o:some\\ thing:x:1", "vendor has a backslash"),
        ("cpe:2.3:o:x:a\tb", "product has '\\t'"),
        ("cpe:2.3:o:x:a\u{7f}b", "product has '\\u{7f}'"),
        ("cpe:/o:r\u{e9}:x", "vendor has 'é'"),
        // The Kelvin sign is k in lower case.
        ("cpe:/o:\u{212a}:x", "vendor has"),
        ("cpe:2.3:o:r\u{e9}", "vendor has 'é'"),
        ("cpe:/o:a:b:1%07", "version has '\\u{7}' percent-encoded"),
        ("cpe:/o:a:b:%41", "version has 'A' percent-encoded"),
        ("cpe:/o:a:b:%2e", "version has a percent sign"),
        ("cpe:/o:a:b:1%2", "version has a percent sign"),
        ("cpe:/o:a:b:1%+1", "version has a percent sign"),
        ("cpe:/o:a:b:1:2:3:4:", "more than 7 attributes"),
        ("cpe:2.3:a:b:c:d:e:f:g:h:i:j:k:", "more than 11 attributes"),
        ("cpe:/a:b:4.*", "product has '*'"),
        ("cpe:/a:b!", "vendor has '!'"),
        ("cpe://a:b", "part has '/'"),
        ("cpe:/a:foo:bar:12.%02.1234", "version has * or ?"),
        ("cpe:2.3:a:b:1.*.2", "product has * or ?"),
        ("cpe:2.3:a:b:1?2", "product has * or ?"),
        ("cpe:2.3:a:b:1**", "product has * or ?"),
        ("cpe:2.3:a:b:*?1", "product has * or ?"),
        ("cpe:/a:b:%02", "product has wildcards only"),
        ("cpe:2.3:a:b:??", "product has wildcards only"),
        ("cpe:2.3:a:\\-", "vendor is a quoted hyphen alone"),
        ("cpe:2.3:a:b\\", "vendor has a backslash that quotes no"),
        ("cpe:2.3:a:\\b", "vendor has a backslash that quotes no"),
        ("cpe:2.3:a:b\\\\:c", "vendor has a backslash that readers"),
        ("cpe:2.3:a:b\\\\!", "vendor has a backslash that readers"),
        ("cpe:/a:b%5c.c", "vendor has a backslash that readers"),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.contains(problem), "{text:?}: {error}");
    }
}

#[test]
fn message_is_short_and_shows_no_control_characters() {
    let error = read(&format!("cpe:/o:\u{1b}[31m\u{202e}\\\"{}", "x".repeat(200)));
    let error = error.expect_err("a control character");
    let (_, excerpt) = error.rsplit_once(": ").expect("an excerpt");
    assert!(
        excerpt.starts_with("cpe:/o:\\u{1b}[31m\\u{202e}\\\"xxx"),
        "{error}"
    );
    assert!(excerpt.ends_with("x..."), "{error}");
    assert_eq!(excerpt.chars().count(), EXCERPT);
}

/// Text near enough to a name that much of it binds.
fn near_names() -> impl Strategy<Value = String> {
    let attribute = r"[-*aoh]?|~?([a-zA-Z0-9]|[._~-]|\\[!-/_]|%[0-7][0-9a-fA-F]){0,3}[?*]?";
    (
        "cpe:/[aoh]:|cpe:2\\.3:[aoh]:|",
        prop::collection::vec(attribute, 0..12),
    )
        .prop_map(|(prefix, attributes)| prefix + &attributes.join(":"))
}

/// A backslash takes the next character with it, whatever it is.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        if c == ':' {
            parts.push(String::new());
            continue;
        }
        let part = parts.last_mut().expect("there is always a part");
        part.push(c);
        if c == '\\' {
            part.extend(chars.next());
        }
    }
    parts
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".*") {
        let _ = read(&text);
    }

    #[test]
    fn what_is_accepted_reads_back_to_itself(text in near_names()) {
        if let Ok(name) = read(&text) {
            prop_assert_eq!(read(&name), Ok(name));
        }
    }

    #[test]
    fn written_name_has_13_parts_of_printable_ascii(text in near_names()) {
        if let Ok(name) = read(&text) {
            prop_assert!(name.chars().all(|c| c.is_ascii_graphic()), "{}", name);
            let parts = parts(&name);
            prop_assert_eq!(parts.len(), 13, "{}", name);
            prop_assert!(parts.iter().all(|part| !part.is_empty()), "{}", name);
        }
    }
}
