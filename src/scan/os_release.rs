//! Which distribution this is: os-release(5), or the release files of systems that are older than it.
//!
//! | File | Systems |
//! |---|---|
//! | `etc/os-release`, `usr/lib/os-release` | all of today |
//! | `etc/system-release`, `etc/redhat-release`, `etc/system-release-cpe` | Enterprise Linux 5 and 6 |

use crate::report::Distribution;
use crate::root::{is_absent, read_text};
use std::io;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

/// What is known of the distribution, and what is missing.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) distribution: Distribution,
    /// `ID_LIKE`: the IDs of related distributions.
    pub(super) id_like: Vec<String>,
    /// Why it is not known, or not from the file it should be from.
    pub(super) trouble: Option<String>,
}

/// Reads the first of the files that says which distribution this is; empty fields where none does.
pub(super) fn read(root: &Path) -> Found {
    let mut found = Found::default();
    for path in ["etc/os-release", "usr/lib/os-release"] {
        match read_text(root, path) {
            Ok(text) => {
                found.distribution = parse(&text);
                found.id_like = id_like(&text);
                if found.distribution.id.is_empty() {
                    let why = format!("{}: has no line ID=", root.join(path).display());
                    found.trouble.get_or_insert(why);
                }
                return found;
            }
            Err(error) => note(root, path, &error, &mut found.trouble),
        }
    }
    let release = ["etc/system-release", "etc/redhat-release"]
        .iter()
        .find_map(|path| match read_text(root, path) {
            Ok(text) => Some(text),
            Err(error) => {
                note(root, path, &error, &mut found.trouble);
                None
            }
        });
    match release {
        Some(release) => {
            let cpe = read_text(root, "etc/system-release-cpe").unwrap_or_default();
            found.distribution = from_release(&release, &cpe);
        }
        None => {
            let why = "the distribution is not known: there is no etc/os-release, usr/lib/os-release, \
                       etc/system-release or etc/redhat-release";
            found
                .trouble
                .get_or_insert_with(|| format!("{}: {why}", root.display()));
        }
    }
    found
}

/// A file that is there and cannot be used is worth a word, one that is not there is not.
fn note(root: &Path, path: &str, error: &io::Error, trouble: &mut Option<String>) {
    if !is_absent(error) {
        let path = root.join(path);
        trouble.get_or_insert_with(|| format!("{}: cannot be read: {error}", path.display()));
    }
}

fn parse(text: &str) -> Distribution {
    let mut found = Distribution::default();
    for (name, value) in assignments(text) {
        let field = match name.as_str() {
            "ID" => &mut found.id,
            "NAME" => &mut found.name,
            "VERSION" => &mut found.version,
            "VERSION_CODENAME" => &mut found.version_code_name,
            "VERSION_ID" => &mut found.version_id,
            "CPE_NAME" => &mut found.cpe,
            "PRETTY_NAME" => &mut found.pretty_name,
            _ => continue,
        };
        *field = value;
    }
    found
}

/// The words of `ID_LIKE`.
fn id_like(text: &str) -> Vec<String> {
    let mut set = assignments(text).into_iter();
    let last = set.rfind(|(name, _)| name == "ID_LIKE");
    let words = last.map(|(_, value)| value).unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

/// The variables that a shell has set after it read this text; nothing is expanded.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut set = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        set.extend(statement(&mut chars));
    }
    set
}

/// The assignments of one statement, which ends with its line or a semicolon. Those in front of a
/// command are for that command alone.
fn statement(chars: &mut Peekable<Chars<'_>>) -> Vec<(String, String)> {
    let mut set = Vec::new();
    let (mut is_command, mut is_export, mut is_first) = (false, false, true);
    while let Some(word) = word(chars) {
        match word.assignment() {
            Some(assignment) => set.push(assignment),
            None if is_first && word.text == "export" => is_export = true,
            None => is_command |= !is_export,
        }
        is_first = false;
    }
    match is_command {
        true => Vec::new(),
        false => set,
    }
}

/// A word with its quotes taken off.
#[derive(Default)]
struct Word {
    text: String,
    /// Where the first `=` stands that no quote or backslash came before.
    equals: Option<usize>,
}

impl Word {
    fn assignment(&self) -> Option<(String, String)> {
        let (name, value) = self.text.split_at_checked(self.equals?)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_variable = name.chars().all(is_name)
            && name.starts_with(|c: char| is_name(c) && !c.is_ascii_digit());
        is_variable.then(|| (name.to_owned(), value[1..].to_owned()))
    }
}

/// The next word of a statement; `None` at its end, which is taken as well.
fn word(chars: &mut Peekable<Chars<'_>>) -> Option<Word> {
    loop {
        match chars.peek()? {
            '\n' | ';' => {
                chars.next();
                return None;
            }
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            c if c.is_ascii_whitespace() => drop(chars.next()),
            _ => break,
        }
    }
    let mut word = Word::default();
    let mut is_plain = true;
    while let Some(c) = chars.next_if(|c| !c.is_ascii_whitespace() && *c != ';') {
        match c {
            '\'' => word.text.extend(until(chars, '\'')),
            '"' => word.text.extend(until(chars, '"')),
            '\\' => word.text.extend(chars.next().filter(|c| *c != '\n')),
            '=' => {
                if is_plain {
                    word.equals.get_or_insert(word.text.len());
                }
                word.text.push(c);
            }
            c => word.text.push(c),
        }
        is_plain &= !matches!(c, '\'' | '"' | '\\');
    }
    Some(word)
}

/// What stands in quotes, which are taken as well. In double quotes a backslash keeps what would
/// otherwise have a meaning, and is itself otherwise.
fn until(chars: &mut Peekable<Chars<'_>>, end: char) -> Vec<char> {
    let mut quoted = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            c if c == end => break,
            '\\' if end == '"' => {
                match chars.next_if(|c| matches!(c, '$' | '`' | '"' | '\\' | '\n')) {
                    Some('\n') => {}
                    Some(kept) => quoted.push(kept),
                    None => quoted.push('\\'),
                }
            }
            c => quoted.push(c),
        }
    }
    quoted
}

/// `CentOS release 6.10 (Final)` and `cpe:/o:centos:linux:6:GA`.
fn from_release(release: &str, cpe: &str) -> Distribution {
    let line = release.lines().next().unwrap_or_default().trim();
    let cpe = cpe.lines().next().unwrap_or_default().trim();
    let (name, version) = line.split_once(" release ").unwrap_or((line, ""));
    let version = version.trim();
    let number = version.split_whitespace().next().unwrap_or_default();
    let code_name = version.split_once('(').map_or("", |(_, rest)| rest);
    Distribution {
        id: id(name, cpe),
        name: name.to_owned(),
        version: version.to_owned(),
        version_code_name: code_name.trim_end_matches(')').to_owned(),
        version_id: number.to_owned(),
        cpe: cpe.to_owned(),
        pretty_name: line.to_owned(),
        ..Distribution::default()
    }
}

/// The ID that os-release of the same distribution has. Where the name is that of RHEL, which rebuilds
/// keep for programs that look for it, the vendor of the CPE decides.
fn id(name: &str, cpe: &str) -> String {
    const NAMES: [(&str, &str); 6] = [
        ("CentOS", "centos"),
        ("Oracle Linux", "ol"),
        ("Scientific Linux", "scientific"),
        ("Amazon Linux", "amzn"),
        ("Fedora", "fedora"),
        ("Red Hat Enterprise Linux", "rhel"),
    ];
    const VENDORS: [(&str, &str); 5] = [
        ("redhat", "rhel"),
        ("centos", "centos"),
        ("oracle", "ol"),
        ("amazon", "amzn"),
        ("fedoraproject", "fedora"),
    ];
    let vendor = cpe
        .strip_prefix("cpe:/o:")
        .and_then(|cpe| cpe.split(':').next());
    let by_vendor = VENDORS.iter().find(|(known, _)| Some(*known) == vendor);
    let by_name = NAMES.iter().find(|(known, _)| name.starts_with(known));
    let id = match (by_name, by_vendor) {
        (Some((_, "rhel")) | None, Some((_, id))) | (Some((_, id)), _) => id,
        (None, None) => return String::new(),
    };
    (*id).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn values_are_those_that_a_shell_reads() {
        for text in [
            "NAME=\"Red Hat Enterprise Linux\"\n# ID=no\nID='rhel'\nVERSION_ID=\"9.4\"\n",
            "PRETTY_NAME=\"a \\\"b\\\" \\$c \\\\ \\n\"\nCPE_NAME=cpe:/o:redhat:enterprise_linux:9::baseos\nBAD",
            "export ID=rhel\n  export  NAME=\"a\"'b c'd\\ e\n",
            "ID=rhel # a comment\nVERSION_ID=9#4\nNAME=#x\n",
            "ID=rhel;VERSION_ID='8'; NAME=x\n",
            "ID=rhel VERSION_ID=9 #\nNAME=''\n",
            "NAME=Red Hat\nID=rhel\n",
            "NAME = x\nID =y\n=z\n1D=q\n\"ID\"=quoted\n",
            "NAME=\"two\nlines\"\nID=last\\\n-line\n",
            "ID=first\nID=second\nVERSION_ID=a=b=c\n",
            "NAME='it'\\''s'\nPRETTY_NAME=\"it's\"\nVERSION=\"a\\\nb\"\n",
            "ID=\"rhel\"\t\nNAME=caf\u{e9}\n",
            "export\nID=rhel\nexport ID\nVERSION_ID=\nexport NAME=x ID\n",
        ] {
            let found = parse(text);
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("os-release");
            std::fs::write(&file, text).unwrap();
            let script = ". \"$0\" >/dev/null 2>&1; printf '%s\\001' \"$ID\" \"$NAME\" \"$VERSION\" \
                          \"$VERSION_ID\" \"$CPE_NAME\" \"$PRETTY_NAME\"";
            let output = Command::new("sh")
                .args(["-c", script])
                .arg(&file)
                .env_clear()
                .output()
                .unwrap();
            let expected = String::from_utf8(output.stdout).unwrap();
            let ours = [
                found.id,
                found.name,
                found.version,
                found.version_id,
                found.cpe,
                found.pretty_name,
            ];
            let ours: String = ours.iter().map(|value| format!("{value}\u{1}")).collect();
            assert_eq!(ours, expected, "{text}");
        }
    }

    #[test]
    fn the_words_of_id_like_are_related_distributions() {
        let text = "ID=rocky\nID_LIKE=fedora\nID_LIKE=\"rhel centos  fedora\"\n";
        assert_eq!(id_like(text), ["rhel", "centos", "fedora"]);
        assert!(id_like("ID=fedora\n").is_empty());
    }

    #[test]
    fn a_quote_that_never_ends_is_no_panic() {
        assert_eq!(parse("ID=rhel\nNAME=\"x").name, "x");
        assert_eq!(parse("NAME=x\\").name, "x");
    }

    #[test]
    fn enterprise_linux_before_os_release_is_told_by_its_release_files() {
        for (release, cpe, id, version_id) in [
            (
                "CentOS release 6.10 (Final)\n",
                "cpe:/o:centos:linux:6:GA\n",
                "centos",
                "6.10",
            ),
            (
                "Red Hat Enterprise Linux Server release 6.10 (Santiago)",
                "cpe:/o:redhat:enterprise_linux:6server:ga:server",
                "rhel",
                "6.10",
            ),
            (
                "Red Hat Enterprise Linux Server release 6.9 (Santiago)",
                "cpe:/o:oracle:linux:6server:ga:server",
                "ol",
                "6.9",
            ),
            (
                "Scientific Linux release 6.7 (Carbon)",
                "",
                "scientific",
                "6.7",
            ),
            (
                "Red Hat Enterprise Linux Server release 5.11 (Tikanga)",
                "",
                "rhel",
                "5.11",
            ),
            ("Something else", "", "", ""),
        ] {
            let found = from_release(release, cpe);
            assert_eq!(
                (found.id.as_str(), found.version_id.as_str()),
                (id, version_id)
            );
            assert_eq!(found.cpe, cpe.trim());
            assert_eq!(found.pretty_name, release.trim());
        }
        let found = from_release("CentOS release 6.10 (Final)", "");
        assert_eq!(
            (found.name.as_str(), found.version.as_str()),
            ("CentOS", "6.10 (Final)")
        );
        assert_eq!(found.version_code_name, "Final");
    }

    #[test]
    fn what_keeps_the_distribution_unknown_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(read(root).trouble.unwrap().contains("etc/redhat-release"));
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::fs::write(root.join("usr/lib/os-release"), "ID=fedora\n").unwrap();
        assert!(read(root).trouble.is_none());
        std::fs::create_dir_all(root.join("etc/os-release")).unwrap();
        let found = read(root);
        assert_eq!(found.distribution.id, "fedora");
        assert!(
            found
                .trouble
                .unwrap()
                .contains("etc/os-release: cannot be read")
        );
    }
}
