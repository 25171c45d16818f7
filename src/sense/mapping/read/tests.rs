//! Reading the mapping from a file and over HTTP.

use super::*;
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::mpsc;

const GOOD: &str = r#"{"data": {"baseos": {"cpes": ["cpe:/o:x"]}}}"#;
const OTHER: &str = r#"{"data": {}}"#;

fn bytes(read: Result<Option<SensorMapping>, String>) -> Option<Vec<u8>> {
    read.unwrap().map(|mapping| {
        assert_eq!(mapping.hash, MappingHash::of(&mapping.bytes));
        mapping.bytes
    })
}

/// Loss prevented: guests are given half a file, or none any more, because somebody else was just writing it.
#[test]
fn a_file_is_read_when_it_changed_and_one_that_is_no_mapping_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mapping.json");
    let mut reader = Reader::new(SensorMappingSource::File(path.clone()));
    let error = reader.read().unwrap_err();
    assert!(
        error.contains("mapping.json") && error.contains("No such file"),
        "{error}"
    );
    fs::write(&path, GOOD).unwrap();
    assert_eq!(bytes(reader.read()).as_deref(), Some(GOOD.as_bytes()));
    assert_eq!(bytes(reader.read()), None);
    let longest = LONGEST - OTHER.len();
    let long = |more: usize| format!("{OTHER}{}", " ".repeat(longest + more));
    for (bad, why) in [
        ("{\"data\": {", "no mapping"),
        ("{}", "no mapping"),
        ("", "no mapping"),
        (&long(1), "longer than 5242880 bytes"),
    ] {
        fs::write(&path, bad).unwrap();
        let error = reader.read().unwrap_err();
        assert!(error.contains(why), "{error}");
        // Until it is put right, whatever its time says.
        assert!(reader.read().is_err());
    }
    fs::write(&path, GOOD).unwrap();
    assert_eq!(bytes(reader.read()), None, "it is the one that guests have");
    fs::write(&path, long(0)).unwrap();
    assert_eq!(bytes(reader.read()).map(|bytes| bytes.len()), Some(LONGEST));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(reader.read().unwrap_err().contains("no regular file"));
}

/// Answers requests one after the other, and gives their heads.
fn server(answers: Vec<String>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mapping.json", listener.local_addr().unwrap());
    let (heads_tx, heads) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                head.push(byte[0]);
            }
            heads_tx
                .send(String::from_utf8(head).unwrap().to_lowercase())
                .unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, heads)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// Loss prevented: two megabytes every four hours for each sensor although nothing changed, or a mapping that is
/// lost because a server answered with an error once.
#[test]
fn a_url_is_asked_only_for_what_is_new_and_an_error_leaves_what_was_read() {
    let (url, heads) = server(vec![
        answer(
            "200 OK",
            "ETag: \"a\"\r\nLast-Modified: Thu, 26 Nov 2026 08:00:00 GMT\r\n",
            GOOD,
        ),
        answer("304 Not Modified", "", ""),
        answer("503 Service Unavailable", "", "no"),
        answer("200 OK", "", GOOD),
        answer("200 OK", "ETag: \"b\"\r\n", OTHER),
        answer("200 OK", "", "<html>"),
    ]);
    let mut reader = Reader::new(SensorMappingSource::Url(url.clone()));
    assert_eq!(bytes(reader.read()).as_deref(), Some(GOOD.as_bytes()));
    assert!(!heads.recv().unwrap().contains("if-"));
    assert_eq!(bytes(reader.read()), None);
    let head = heads.recv().unwrap();
    assert!(head.contains("if-none-match: \"a\""), "{head}");
    assert!(
        head.contains("if-modified-since: thu, 26 nov 2026 08:00:00 gmt"),
        "{head}"
    );
    let error = reader.read().unwrap_err();
    assert!(error.contains(&url) && error.contains("503"), "{error}");
    assert_eq!(bytes(reader.read()), None, "the same content");
    assert_eq!(bytes(reader.read()).as_deref(), Some(OTHER.as_bytes()));
    assert!(reader.read().unwrap_err().contains("no mapping"));
    drop(heads);
    assert!(reader.read().unwrap_err().contains("no connection"));
}

/// Loss prevented: guests without CPEs, because the last good mapping went with the first error.
#[tokio::test]
async fn a_failure_keeps_the_last_good_mapping_and_is_told_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mapping.json");
    fs::write(&path, GOOD).unwrap();
    let named = SensorMappingSource::File(path.clone());
    let source = Arc::new(MappingSource::new(&named));
    let (to, mut feed) = watch::channel(None);
    let task = tokio::spawn(source.clone().follow(named, to));
    feed.changed().await.unwrap();
    let first = feed.borrow_and_update().clone().unwrap();
    assert_eq!(source.status().error, None);
    fs::write(&path, "nonsense").unwrap();
    source.reread();
    let until = async |is_error: bool| {
        while source.status().error.is_some() != is_error {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    until(true).await;
    assert!(
        source
            .status()
            .error
            .as_ref()
            .unwrap()
            .contains("mapping.json")
    );
    assert_eq!(source.status().hash, Some(first.hash));
    assert!(!feed.has_changed().unwrap(), "guests keep what they have");
    fs::write(&path, OTHER).unwrap();
    source.reread();
    until(false).await;
    feed.changed().await.unwrap();
    assert_eq!(feed.borrow().as_ref().unwrap().bytes, OTHER.as_bytes());
    task.abort();
}
