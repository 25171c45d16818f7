//! Tests of requests, redirects, deadlines and retries.

use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;

#[test]
fn a_status_is_an_answer_and_its_headers_are_found_in_any_case() {
    let url = serve(vec![
        "HTTP/1.1 503 No\r\nX-Why: full\r\nContent-Length: 2\r\n\r\nhi",
    ]);
    let response = Client::new(HttpOptions::default()).get(&url, &[]).unwrap();
    assert_eq!(
        (response.status, response.header("x-why")),
        (503, Some("full"))
    );
    assert_eq!(response.body, b"hi");
}

#[test]
fn nobody_listening_is_no_connection() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = Client::new(HttpOptions::default()).get(&format!("http://127.0.0.1:{port}/"), &[]);
    assert!(
        matches!(error, Err(HttpError::NoConnection(_))),
        "{error:?}"
    );
}

#[test]
fn a_server_that_says_nothing_meets_the_deadline() {
    let url = serve(vec![]);
    let options = HttpOptions {
        deadline: Duration::from_millis(200),
        ..HttpOptions::default()
    };
    let error = Client::new(options).get(&url, &[]);
    assert!(matches!(error, Err(HttpError::Deadline(_))), "{error:?}");
}

#[test]
fn a_body_that_ends_too_early_is_broken_and_one_over_the_cap_is_refused() {
    let short = serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"]);
    let error = Client::new(HttpOptions::default()).get(&short, &[]);
    assert!(matches!(error, Err(HttpError::Broken(_))), "{error:?}");
    let options = HttpOptions {
        body_cap: 4,
        ..HttpOptions::default()
    };
    let long = serve(vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi there!",
    ]);
    let error = Client::new(options).get(&long, &[]);
    assert!(matches!(error, Err(HttpError::TooLong(4))), "{error:?}");
}

#[test]
fn a_redirect_is_followed_at_home_and_never_abroad() {
    let home = serve(vec![
        "HTTP/1.1 302 F\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ]);
    let client = Client::new(HttpOptions::default());
    assert_eq!(client.get(&home, &[]).unwrap().body, b"ok");
    let abroad = serve(vec![
        "HTTP/1.1 302 F\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 0\r\n\r\n",
    ]);
    let error = client.get(&abroad, &[]).unwrap_err().to_string();
    assert!(
        error.contains("(302) to another origin, http://elsewhere.invalid/"),
        "{error}"
    );
    let nowhere = serve(vec!["HTTP/1.1 307 F\r\nContent-Length: 0\r\n\r\n"]);
    let error = client.get(&nowhere, &[]).unwrap_err().to_string();
    assert!(
        error.contains("(307) that does not say where to"),
        "{error}"
    );
}

#[test]
fn as_many_redirects_are_followed_as_the_message_says() {
    const AGAIN: &str =
        "HTTP/1.1 302 F\r\nLocation: ../x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const FOUND: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let client = Client::new(HttpOptions::default());
    let three = serve(vec![AGAIN, AGAIN, AGAIN, FOUND]);
    assert_eq!(client.get(&three, &[]).unwrap().body, b"ok");
    let four = serve(vec![AGAIN, AGAIN, AGAIN, AGAIN, FOUND]);
    let error = client.get(&four, &[]).unwrap_err().to_string();
    assert!(error.starts_with("more than 3 redirects"), "{error}");
}

#[test]
fn one_deadline_holds_for_all_redirects_together() {
    const AGAIN: &str =
        "HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // The third is never answered.
    let url = serve(vec![AGAIN, AGAIN]);
    let deadline = Duration::from_millis(300);
    let began = clock::now();
    let error = Client::new(HttpOptions::default()).get_within(&url, &[], deadline);
    assert!(
        matches!(error, Err(HttpError::Deadline(limit)) if limit == deadline),
        "{error:?}"
    );
    assert!(clock::now() - began < 3 * deadline);
}

#[test]
fn the_answer_to_a_post_is_its_status_however_long_its_body() {
    let options = HttpOptions {
        body_cap: 4,
        ..HttpOptions::default()
    };
    let client = Client::new(options);
    let long = serve(vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi there!",
    ]);
    let answer = client.post(&long, &[], b"x").unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hi t"[..]));
    let short = serve(vec!["HTTP/1.1 202 OK\r\nContent-Length: 9\r\n\r\nhi"]);
    let answer = client.post(&short, &[], b"x").unwrap();
    assert_eq!((answer.status, &answer.body[..]), (202, &b"hi"[..]));
}

/// Loss prevented: megabytes sent eight times to a Central that says 413 to the first line of them.
#[test]
fn an_answer_given_before_the_body_was_read_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut expected = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            expected.push(head.contains("expect: 100-continue"));
            let answer =
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
            stream.write_all(answer).unwrap();
            // Closing with the body unread resets the connection.
        }
        expected
    });
    let body = vec![b'x'; 32 << 20];
    let answer = Client::new(HttpOptions::default())
        .post(&url, &[], &body)
        .unwrap();
    assert_eq!((answer.status, &answer.body[..]), (413, &b"big"[..]));
    // The fault came about, and the body was not sent again.
    assert_eq!(server.join().unwrap(), [false, true]);
}

#[test]
fn a_renewed_ca_file_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let pem = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key);
        certificate.unwrap().pem()
    };
    std::fs::write(&path, pem()).unwrap();
    let client = Client::new(HttpOptions {
        ca_file: Some(path.clone()),
        ..HttpOptions::default()
    });
    client.agent_for("https://c").unwrap();
    let made_of = |client: &Client| client.tls.lock().unwrap().as_ref().unwrap().1;
    let first = made_of(&client);
    client.agent_for("https://c").unwrap();
    assert_eq!(made_of(&client), first);
    let next = dir.path().join("next");
    std::fs::write(&next, pem()).unwrap();
    std::fs::rename(&next, &path).unwrap();
    client.agent_for("https://c").unwrap();
    assert_ne!(made_of(&client), first);
    // One that is broken is an error, as at the start.
    std::fs::write(&path, "").unwrap();
    assert!(client.agent_for("https://c").is_err());
}

#[test]
fn an_https_request_without_usable_roots_is_an_error_and_no_panic() {
    let options = HttpOptions {
        ca_file: Some("/nonexistent/ca.pem".into()),
        ..HttpOptions::default()
    };
    let error = Client::new(options).get("https://127.0.0.1:1/", &[]);
    assert!(
        matches!(error, Err(HttpError::Configuration(_))),
        "{error:?}"
    );
    let empty = tempfile::NamedTempFile::new().unwrap();
    let options = HttpOptions {
        ca_file: Some(empty.path().into()),
        ..HttpOptions::default()
    };
    let error = Client::new(options).get("https://127.0.0.1:1/", &[]);
    assert!(
        matches!(error, Err(HttpError::Configuration(_))),
        "{error:?}"
    );
}

/// Answers one connection after the other with the given bytes; with none left, keeps the
/// last connection open and silent until the client gives up.
fn serve(answers: Vec<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
        let silent = listener.accept();
        let mut rest = Vec::new();
        let _ = silent.map(|(mut stream, _)| stream.read_to_end(&mut rest));
    });
    url
}
