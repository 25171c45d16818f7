//! Tests of the mapping.

use super::*;

const MAPPING: &str = r#"{"version": 1, "data": {
    "baseos": {"cpes": ["cpe:/o:redhat:enterprise_linux:9::baseos", "cpe:/o:redhat:enterprise_linux:9"], "x": 1},
    "other": {"cpes": []}}}"#;

const CPE_9: &str = "cpe:2.3:o:redhat:enterprise_linux:9:*:*:*:*:*:*:*";
const CPE_BASEOS: &str = "cpe:2.3:o:redhat:enterprise_linux:9:*:baseos:*:*:*:*:*";

#[test]
fn a_known_repository_gets_an_entry_for_each_cpe() {
    let mapping = Mapped::new(MAPPING);
    let mut report = report(&["appstream", "baseos", "other"]);
    assert_eq!(mapping.open().apply(&mut report, &[]).unwrap(), []);
    assert_eq!(
        report.repositories,
        [
            plain("appstream"),
            mapped("baseos", CPE_9),
            mapped("baseos", CPE_BASEOS),
            plain("other"),
        ]
    );
}

#[test]
fn a_repository_of_the_history_is_added_only_if_the_mapping_knows_it() {
    let mapping = Mapped::new(
        r#"{"data": {"a b/9": {"cpes": ["cpe:/o:redhat:enterprise_linux:9::baseos"]},
            "none": {"cpes": []}, "no cpe": {"cpes": ["x"]}, "unused": {"cpes": ["cpe:/a:b:c"]}}}"#,
    );
    let history = ["a b/9", "epel", "none", "no cpe"].map(String::from);
    let mut report = report(&["epel", "no cpe"]);
    mapping.open().apply(&mut report, &history).unwrap();
    assert_eq!(
        report.repositories,
        [mapped("a b/9", CPE_BASEOS), plain("epel"), plain("no cpe")]
    );
    assert_eq!(report.repositories[0].uri, "repoid=a%20b%2F9");
}

#[test]
fn a_cpe_that_is_none_is_left_out_and_told_once_for_one_content() {
    let bad = r#"{"data": {"baseos": {"cpes": ["cpe:/o:red hat:x", "cpe:/o:redhat:enterprise_linux:9"]},
        "late": {"cpes": [""]}}}"#;
    let mapping = Mapped::new(bad);
    let mut repo_cpe = mapping.open();
    let mut apply = |history: &[&str]| {
        let mut report = report(&["baseos"]);
        let history: Vec<String> = history.iter().map(|id| (*id).into()).collect();
        let rejected = repo_cpe.apply(&mut report, &history).unwrap();
        assert_eq!(report.repositories, [mapped("baseos", CPE_9)]);
        rejected
            .into_iter()
            .map(|r| r.repository)
            .collect::<Vec<_>>()
    };
    assert_eq!(apply(&[]), ["baseos"]);
    assert!(apply(&[]).is_empty());
    assert_eq!(apply(&["late"]), ["late"], "nobody requested it before");
    assert!(apply(&[]).is_empty());
    mapping.write(bad);
    assert!(apply(&[]).is_empty(), "another file of the same content");
    mapping.write(&format!("{bad} "));
    assert_eq!(apply(&[]), ["baseos"]);
}

#[test]
fn two_spellings_of_a_cpe_are_one_entry() {
    let mapping = Mapped::new(&format!(
        r#"{{"data": {{"baseos": {{"cpes": ["cpe:/o:redhat:enterprise_linux:9::baseos", "{CPE_BASEOS}"]}}}}}}"#
    ));
    let mut report = report(&["baseos"]);
    mapping.open().apply(&mut report, &[]).unwrap();
    assert_eq!(report.repositories, [mapped("baseos", CPE_BASEOS)]);
}

#[test]
fn a_changed_file_is_read_again_and_what_is_wrong_with_it_is_told_apart() {
    let mapping = Mapped::new(MAPPING);
    let mut repo_cpe = mapping.open();
    fs::remove_file(&mapping.path).unwrap();
    let mut untouched = report(&["baseos"]);
    let missing = repo_cpe.apply(&mut untouched, &[]).unwrap_err();
    assert!(matches!(missing, RepoCpeError::Missing { .. }), "{missing}");
    mapping.write(MAPPING);
    let mut changed = report(&["baseos"]);
    repo_cpe.apply(&mut changed, &[]).unwrap();
    assert_eq!(changed.repositories.len(), 2);
    mapping.write("{\"data\": 3}");
    let malformed = repo_cpe.apply(&mut untouched, &[]).unwrap_err();
    assert!(
        matches!(malformed, RepoCpeError::Malformed { .. }),
        "{malformed}"
    );
    fs::remove_file(&mapping.path).unwrap();
    fs::create_dir(&mapping.path).unwrap();
    let unreadable = repo_cpe.apply(&mut untouched, &[]).unwrap_err();
    assert!(
        matches!(unreadable, RepoCpeError::Io { .. }),
        "{unreadable}"
    );
    assert_eq!(untouched, report(&["baseos"]));
}

#[test]
fn what_is_no_mapping_is_refused() {
    for json in [
        "",
        "[]",
        "{}",
        r#"{"data": {"a": {}}}"#,
        r#"{"data": {}} x"#,
        "<html>",
    ] {
        assert!(
            parse(json.as_bytes(), &BTreeSet::new(), Entries::Checked).is_err(),
            "{json}"
        );
    }
}

#[test]
fn a_pushed_mapping_is_read_once_for_the_same_repositories() {
    let json = r#"{"data": {"baseos": {"cpes": ["cpe:/o:redhat:enterprise_linux:9"]}, "odd": 3}}"#;
    let hash = MappingHash::of(json.as_bytes());
    let reads = std::cell::Cell::new(0);
    let read = || {
        reads.set(reads.get() + 1);
        Ok(json.to_owned())
    };
    let mut repo_cpe = RepoCpe::default();
    for (n, rejected) in [(1, vec!["odd"]), (1, vec![])] {
        let mut report = report(&["baseos", "odd"]);
        let (of, told) = repo_cpe
            .apply(&mut report, &[], Content::Pushed(hash, &read))
            .unwrap();
        assert_eq!(of, hash);
        assert_eq!(report.repositories, [mapped("baseos", CPE_9), plain("odd")]);
        let told: Vec<_> = told.iter().map(|r| r.repository.as_str()).collect();
        assert_eq!((reads.get(), told), (n, rejected));
    }
}

#[test]
fn what_is_fetched_replaces_the_copy_only_when_it_is_a_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let answers = [
        ("200 OK", MAPPING),
        ("200 OK", MAPPING),
        ("200 OK", "<html>"),
        ("503 Busy", MAPPING),
    ];
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/repository-to-cpe.json",
        server.local_addr().unwrap()
    );
    let token_file = dir.path().join("token");
    fs::write(&token_file, "s3cret\n").unwrap();
    let options = FetchOptions {
        token_file: Some(token_file),
        ca_file: None,
    };
    let serving = std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = [0; 4096];
            let len = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..len]).to_lowercase();
            assert!(
                request.contains("authorization: bearer s3cret"),
                "{request}"
            );
            write!(
                stream,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
        }
    });
    assert!(fetch(&url, &options, dir.path()).unwrap());
    assert!(
        !fetch(&url, &options, dir.path()).unwrap(),
        "the same again is no news"
    );
    assert!(matches!(
        fetch(&url, &options, dir.path()),
        Err(RepoCpeError::Malformed { .. })
    ));
    assert!(matches!(
        fetch(&url, &options, dir.path()),
        Err(RepoCpeError::Fetch { .. })
    ));
    serving.join().unwrap();
    let options = FetchOptions {
        token_file: Some(dir.path().join("nowhere")),
        ..options
    };
    let error = fetch(&url, &options, dir.path()).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
    let mut report = report(&["baseos"]);
    let copy = Source::Url(url).file(dir.path()).unwrap();
    Opened(RepoCpe::default(), &copy)
        .apply(&mut report, &[])
        .unwrap();
    assert_eq!(
        report.repositories.len(),
        2,
        "the good copy is still in use"
    );
}

/// A mapping in a file.
struct Mapped {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Mapped {
    fn new(json: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.json");
        let this = Self { dir, path };
        this.write(json);
        this
    }

    /// Replaces the file, so that it is another one also within one tick of the clock.
    fn write(&self, json: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, json).unwrap();
        fs::rename(new, &self.path).unwrap();
    }

    fn open(&self) -> Opened<'_> {
        Opened(RepoCpe::default(), &self.path)
    }
}

/// A mapping in a file, and what is known of it.
struct Opened<'a>(RepoCpe, &'a Path);

impl Opened<'_> {
    fn apply(
        &mut self,
        report: &mut Report,
        history: &[String],
    ) -> Result<Vec<Rejected>, RepoCpeError> {
        let (hash, rejected) = self.0.apply(report, history, Content::File(self.1))?;
        assert_eq!(hash, MappingHash::of(&fs::read(self.1).unwrap()));
        Ok(rejected)
    }
}

fn plain(id: &str) -> Repository {
    Repository {
        id: id.into(),
        ..Repository::default()
    }
}

fn mapped(id: &str, cpe: &str) -> Repository {
    Repository {
        id: id.into(),
        key: MAPPED_KEY.into(),
        uri: hint_of(id),
        cpe: cpe.into(),
    }
}

fn report(repositories: &[&str]) -> Report {
    Report {
        repositories: repositories.iter().map(|id| plain(id)).collect(),
        ..Report::default()
    }
}
