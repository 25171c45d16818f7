//! Our order of versions beside that of the real `rpm`, on a large generated corpus.

use afferent::report::evr::RpmVersion;
use std::cmp::Ordering;
use std::fs;
use std::io::Write;
use std::process::Command;

/// Pairs that are compared.
const PAIRS: usize = 300_000;

/// Pieces of which versions are made: what decides the order, what separates, and what rpm ignores.
const PIECES: &[&[u8]] = &[
    b"0",
    b"1",
    b"2",
    b"9",
    b"10",
    b"00",
    b"01",
    b"123456789012345678901",
    b"a",
    b"b",
    b"rc",
    b"el9",
    b"Z",
    b"fc40",
    b".",
    b".",
    b"_",
    b"+",
    b"~",
    b"~",
    b"^",
    b"^",
    b"-",
    b"-",
    b":",
    b"1:",
    b"0:",
    b"..",
    b"~~",
    b"^^",
    b"\xe9",
    b"\xc3\xa9",
    b"\\",
    b"/",
    b"{",
    b"%",
];

/// Versions as packages really have them, to be compared with their own variations.
const REAL: &[&[u8]] = &[
    b"1:3.0.7-27.el9_4",
    b"5.14.0-427.13.1.el9_4",
    b"2.34-100.el9_4.2",
    b"9.0.2120-1.fc40",
    b"1.0~rc1-0.1.el9",
    b"0^20240301gitabcdef-1.fc41",
    b"32:9.16.23-18.el9",
    b"20240202-1.git283706d",
    b"4.18.0-553.el8_10",
    b"1.8.0.402.b06-2.el9",
    b"2:1.02.195-3.el9",
    b"8.7p1-38.el9_4.4",
];

#[test]
fn versions_compare_as_in_rpm() {
    let mut random = fastrand::Rng::with_seed(0x5eed_0e57);
    let pairs: Vec<[Vec<u8>; 2]> = (0..PAIRS).map(|_| pair(&mut random)).collect();
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("pairs");
    let mut text = Vec::new();
    for [a, b] in &pairs {
        text.extend_from_slice(a);
        text.push(b'\t');
        text.extend_from_slice(b);
        text.push(b'\n');
    }
    fs::File::create(&corpus).unwrap().write_all(&text).unwrap();

    let rpm = orders_of_rpm(corpus.to_str().unwrap());
    assert_eq!(rpm.len(), pairs.len(), "rpm compared every pair");
    let mut seen = [0; 3];
    for ([a, b], rpm) in pairs.iter().zip(rpm) {
        let ours = RpmVersion::parse(a).compare(&RpmVersion::parse(b));
        let (a, b) = (a.escape_ascii(), b.escape_ascii());
        assert_eq!(ours, rpm, "{a} against {b}");
        seen[usize::try_from(ours as i8 + 1).unwrap()] += 1;
    }
    // The corpus is worth something only if all three answers are common in it.
    assert!(seen.iter().all(|count| *count > PAIRS / 100), "{seen:?}");
}

/// What `rpm` says of each line of the file.
fn orders_of_rpm(corpus: &str) -> Vec<Ordering> {
    let script = format!(
        "%{{lua: for line in io.lines('{corpus}') do
             local a, b = line:match('^(.*)\\t(.*)$')
             io.write(rpm.vercmp(a, b), '\\n')
         end}}"
    );
    let output = Command::new("rpm")
        .args(["--eval", &script])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers = text.lines().filter(|line| !line.is_empty());
    let order = |line: &str| line.parse::<i32>().unwrap().cmp(&0);
    numbers.map(order).collect()
}

/// Two versions that have much in common: unrelated ones are decided by their first byte.
fn pair(random: &mut fastrand::Rng) -> [Vec<u8>; 2] {
    let a = match random.u8(0..4) {
        0 => random.choice(REAL).unwrap().to_vec(),
        _ => pieces(random),
    };
    let b = match random.u8(0..5) {
        0 => pieces(random),
        _ => variation(&a, random),
    };
    [a, b]
}

fn pieces(random: &mut fastrand::Rng) -> Vec<u8> {
    let count = random.usize(1..8);
    (0..count)
        .flat_map(|_| random.choice(PIECES).unwrap().to_vec())
        .collect()
}

/// The same with a piece put in, or with a byte replaced or taken out.
fn variation(of: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut version = of.to_vec();
    for _ in 0..random.usize(1..3) {
        let at = random.usize(0..=version.len());
        let piece = random.choice(PIECES).unwrap();
        let cut = random.usize(0..2).min(version.len() - at);
        let piece = if random.bool() { piece } else { &b""[..] };
        version.splice(at..at + cut, piece.iter().copied());
    }
    // rpm takes no empty text for a version.
    if version.is_empty() {
        b"0".to_vec()
    } else {
        version
    }
}
