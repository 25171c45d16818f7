//! Files made to hurt a reader: each is refused or survived, with words that say what is wrong.
//!
//! `tests/fixtures/nasty/outcomes.txt` holds what is said of each. Finds of the fuzzers join them.

use crate::support::headers::Fields;
use afferent::rpmdb::sqlite::Beside;
use afferent::rpmdb::{Backend, Checks, Database, Described, Error, Scratch, read};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

// The loss: an agent that a damaged or malicious database crashes, hangs or fools.
#[test]
fn every_nasty_file_is_refused_or_survived_in_known_words() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nasty");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "outcomes.txt")
        .collect();
    names.sort();
    let mut said = String::new();
    for name in names {
        let bytes = fs::read(directory.join(&name)).unwrap();
        let outcome = match name.split('-').next().unwrap() {
            "header" => one(read(&mut bytes.as_slice(), 1, &mut Scratch::default())),
            "sqlite" => all(Backend::Sqlite, bytes),
            "ndb" => all(Backend::Ndb, bytes),
            "bdb" => all(Backend::Bdb, bytes),
            other => panic!("{other}: which reader is that for?"),
        };
        writeln!(said, "{name}: {outcome}").unwrap();
    }
    let expected = fs::read_to_string(directory.join("outcomes.txt")).unwrap();
    assert!(said == expected, "now they say:\n{said}");
}

fn one(result: Result<Described, Error>) -> String {
    match result {
        Ok(Described::Package(package)) => format!("{} {}", package.name, package.evr),
        Ok(Described::Key) => "a key".into(),
        Err(error) => error.to_string(),
    }
}

fn all(backend: Backend, bytes: Vec<u8>) -> String {
    let mut database = match Database::open(backend, bytes, Beside::Nothing) {
        Ok(database) => database,
        Err(error) => return format!("refused: {error}"),
    };
    let (mut found, mut scratch) = (Vec::new(), Scratch::default());
    let walked = database.headers(Checks::Make, &mut |item| {
        let number = item.number;
        found.push(one(item
            .blob
            .and_then(|blob| read(blob, number, &mut scratch))));
        ControlFlow::Continue(())
    });
    found.extend(walked.err().map(|error| format!("then {error}")));
    if found.is_empty() {
        return "nothing in it".into();
    }
    found.join("; ")
}

proptest! {
    // The loss: a field of a header read from the wrong place.
    #[test]
    fn a_header_gives_back_what_was_put_into_it(
        name in "[a-z][a-z0-9+._-]{0,60}",
        version in "[0-9a-z.~^]{1,20}",
        epoch: Option<u32>,
        arch in proptest::option::of("[a-z0-9_]{1,10}"),
        source in proptest::option::of("[a-z.-]{0,40}"),
        label in proptest::option::of("[a-z:0-9]{1,40}"),
        files in 0..300u32,
    ) {
        let mut fields = Fields::named(&name);
        fields.version = version.clone().into();
        fields.epoch = epoch;
        fields.arch = arch.clone().map(Into::into);
        fields.source_rpm = source.clone().map(Into::into);
        fields.modularity_label = label.clone().map(Into::into);
        fields.files = files;
        let blob = fields.blob();
        match read(&mut blob.as_slice(), 1, &mut Scratch::default()).unwrap() {
            Described::Package(package) => {
                prop_assert_eq!(package.name, name);
                prop_assert_eq!(package.evr.version, version);
                prop_assert_eq!(package.evr.epoch, epoch.unwrap_or(0));
                prop_assert_eq!(package.arch, arch);
                prop_assert_eq!(package.source_rpm, source);
                prop_assert_eq!(package.modularity_label, label);
            }
            Described::Key => prop_assert_eq!(name, "gpg-pubkey"),
        }
    }

    // The loss: bytes beyond the end, a panic, or a package made of another one's bytes.
    #[test]
    fn a_header_that_was_cut_is_an_error(cut in 0.0..1.0f64) {
        let blob = Fields::named("cut").blob();
        let short = &blob[..(cut * blob.len() as f64) as usize];
        prop_assert!(read(&mut &*short, 1, &mut Scratch::default()).is_err());
    }
}
