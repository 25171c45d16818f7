//! A client of an API, over TCP or a unix socket, that sends what it is told and shows what it gets; and what holds
//! of the APIs of all services.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The token of programs.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Writes a token that not everybody may read.
pub fn write_token(path: &Path, token: &str) {
    fs::write(path, token).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The header line of a program with this token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Bytes both ways.
pub trait BothWays: Read + Write + Send {}
impl<T: Read + Write + Send> BothWays for T {}

/// Where the API is.
#[derive(Clone, Debug)]
pub enum Web {
    Tcp(u16),
    Unix(PathBuf),
}

/// An answer.
#[derive(Debug)]
pub struct WebAnswer {
    pub code: u16,
    pub head: String,
    pub body: String,
}

impl WebAnswer {
    /// The value of a header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Web {
    pub fn connect(&self) -> std::io::Result<Box<dyn BothWays>> {
        let longest = Some(super::LONGEST_WAIT);
        Ok(match self {
            Self::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_read_timeout(longest)?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(longest)?;
                Box::new(stream)
            }
        })
    }

    /// What is answered to these bytes.
    pub fn raw(&self, request: &str) -> std::io::Result<WebAnswer> {
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(WebAnswer {
            code: code.unwrap_or(0),
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    /// A request with these further header lines, each with its line break.
    pub fn ask(&self, method: &str, target: &str, headers: &str) -> WebAnswer {
        let host = match headers.to_lowercase().contains("host: ") {
            true => "",
            false => "Host: localhost\r\n",
        };
        let request =
            format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n");
        self.raw(&request).unwrap()
    }

    pub fn get(&self, target: &str, headers: &str) -> WebAnswer {
        self.ask("GET", target, headers)
    }

    /// The data that a program gets.
    pub fn data(&self, target: &str) -> Value {
        let answer = self.get(target, &bearer(TOKEN));
        assert_eq!(answer.code, 200, "{target}: {answer:?}");
        answer.json()
    }

    /// The rows of this name on all pages, and the number of pages; `target` has a parameter.
    pub fn pages(&self, target: &str, name: &str) -> (Vec<Value>, usize) {
        let (mut rows, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = self.data(&format!("{target}{cursor}"));
            rows.extend(page[name].as_array().unwrap().clone());
            pages += 1;
            match &page["next"] {
                Value::Null => return (rows, pages),
                // A log goes on, but there is no more of it now.
                _ if page["more"] == false => return (rows, pages),
                Value::String(next) => cursor = format!("&cursor={next}"),
                next => cursor = format!("&cursor={next}"),
            }
        }
    }

    /// The events of a stream, as they come.
    pub fn events(&self, target: &str, headers: &str) -> WebEvents {
        let mut stream = self.connect().unwrap();
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        )
        .unwrap();
        WebEvents(BufReader::new(stream))
    }
}

/// A stream of server-sent events.
pub struct WebEvents(BufReader<Box<dyn BothWays>>);

impl WebEvents {
    /// The lines up to one that begins like this, and that one.
    pub fn until(&mut self, begin: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(
                self.0.read_line(&mut line).unwrap(),
                0,
                "the stream ended: {lines:?}"
            );
            lines.push(line.trim_end().to_owned());
            if line.starts_with(begin) {
                return lines;
            }
        }
    }

    /// The next change: its number and data.
    pub fn next(&mut self) -> (u64, Value) {
        loop {
            if let (Some(id), data) = self.event() {
                return (id, data);
            }
        }
    }

    /// What a sink accepted next.
    pub fn accepted(&mut self) -> Value {
        loop {
            if let (None, data) = self.event() {
                return data;
            }
        }
    }

    /// The next event: its id, if it has one, and its data.
    fn event(&mut self) -> (Option<u64>, Value) {
        let lines = self.until("data: ");
        let id = lines.iter().find_map(|line| line.strip_prefix("id: "));
        let data = lines.last().and_then(|line| line.strip_prefix("data: "));
        (
            id.map(|id| id.parse().unwrap()),
            serde_json::from_str(data.unwrap()).unwrap(),
        )
    }

    /// Whether the other end closes it.
    pub fn is_ended(&mut self) -> bool {
        self.0.read_to_end(&mut Vec::new()).is_ok()
    }
}

/// Asserts that a program with the token is refused with these codes, in these words.
pub fn assert_refused(web: &Web, cases: &[(&str, u16, &str)]) {
    for (target, code, said) in cases {
        let answer = web.get(target, &bearer(TOKEN));
        assert_eq!(answer.code, *code, "{target}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(said), "{target}: {error}");
    }
}

/// Asserts that these targets, which may be no data at all, are for nobody without a login, and that it is said how
/// to get one: with `command`.
pub fn assert_needs_login(command: &str, web: &Web, targets: &[&str]) {
    let cookie = format!("Cookie: afferent_{command}_00000000=1\r\n");
    for target in targets {
        for wrong in [
            "",
            &bearer("x"),
            &bearer(""),
            "Authorization: Basic eDp5\r\n",
            &cookie,
        ] {
            let answer = web.get(target, wrong);
            assert_eq!(answer.code, 401, "{target}: {answer:?}");
            let said = answer.json()["error"].as_str().unwrap().to_owned();
            for way in [
                format!("{command} login"),
                format!("--{command}-token-file"),
            ] {
                assert!(said.contains(&way), "{target}: {said}");
            }
        }
    }
}

/// Asserts that this data is for programs and sessions, of which `browser` is the header line, and for no others.
pub fn assert_data(web: &Web, target: &str, browser: &str) {
    for allowed in [&bearer(TOKEN), browser] {
        let answer = web.get(target, allowed);
        assert_eq!(answer.code, 200, "{target}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let head = web.ask("HEAD", target, allowed);
        assert_eq!((head.code, head.body.as_str()), (200, ""), "{target}");
    }
    assert_guarded(web, target, browser);
}

/// Asserts that the address that `command` prints is of this server, and lets one browser in, once.
pub fn assert_login_works_once(command: &str, web: &Web, state: &Path) {
    let (server, target) = login_address_of(command, state);
    if let Web::Tcp(port) = web {
        assert_eq!(server, format!("http://127.0.0.1:{port}"));
    }
    // A program that looks at the address first does not use it up.
    assert_eq!(web.ask("HEAD", &target, "").code, 200);
    let first = web.get(&target, "");
    assert_eq!((first.code, first.header("location")), (303, Some("/")));
    let cookie = first.header("set-cookie").unwrap();
    for part in [
        &format!("afferent_{command}_"),
        "; HttpOnly",
        "; SameSite=Strict",
        "; Max-Age=43200",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "no browser would keep it");
    assert!(!cookie.contains(target.split_once('=').unwrap().1));
    let second = web.get(&target, "");
    assert_eq!((second.code, second.header("set-cookie")), (401, None));
    for target in ["/login", "/login?code=", "/login?x=1"] {
        let answer = web.get(target, "");
        assert_eq!(answer.code, 400, "{target}: {answer:?}");
        let command = format!("`afferent {command} login`");
        assert!(answer.body.contains(&command), "{target}: {answer:?}");
    }
}

/// Asserts that this target is answered at a name of this server only, to GET and HEAD only, and to no page of
/// another server, or of another port of this machine; `browser` is the header line of a session.
pub fn assert_guarded(web: &Web, target: &str, browser: &str) {
    for host in ["evil.example", "evil.example:80", "10.0.0.1", ""] {
        let answer = web.get(target, &format!("Host: {host}\r\n{browser}"));
        assert_eq!(answer.code, 421, "{target} {host}: {answer:?}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
        let answer = web.ask(method, target, browser);
        assert_eq!(
            (answer.code, answer.header("allow")),
            (405, Some("GET, HEAD"))
        );
    }
    for site in ["cross-site", "same-site"] {
        let from = format!("{browser}Origin: http://localhost:1\r\nSec-Fetch-Site: {site}\r\n");
        let answer = web.get(target, &from);
        assert_eq!(answer.code, 403);
        assert!(
            !answer.head.to_lowercase().contains("access-control"),
            "{answer:?}"
        );
    }
}

/// Asserts that the files of a page are for everybody, run nothing inline and load nothing from elsewhere.
pub fn assert_page_files(web: &Web) {
    for (target, kind) in [
        ("/", "text/html"),
        ("/shell.js", "text/javascript"),
        ("/app.js", "text/javascript"),
        ("/shell.css", "text/css"),
        ("/style.css", "text/css"),
        ("/openapi.json", "application/json"),
    ] {
        let answer = web.get(target, "");
        assert_eq!(answer.code, 200, "{answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with(kind));
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'")
        );
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(web.get(target, "Host: evil.example\r\n").code, 421);
        let with_more = web.get(&format!("{target}?v=1&v=2"), "");
        assert_eq!((with_more.code, with_more.body), (200, answer.body));
    }
}

/// The address that `afferent fleet login` prints: its server, and the target.
pub fn login_address(state: &Path) -> (String, String) {
    login_address_of("fleet", state)
}

/// The same of another command.
pub fn login_address_of(command: &str, state: &Path) -> (String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args([command, "login", "--state-dir"])
        .arg(state)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let at = text.find("/login?").unwrap_or_else(|| panic!("{text}"));
    (text[..at].to_owned(), text[at..].trim_end().to_owned())
}

/// The header line of a browser that opened such an address.
pub fn session(web: &Web, state: &Path) -> String {
    session_of("fleet", web, state)
}

/// The same with the address of another command.
pub fn session_of(command: &str, web: &Web, state: &Path) -> String {
    let (_, target) = login_address_of(command, state);
    let answer = web.get(&target, "");
    assert_eq!(answer.code, 303, "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap().split(';').next();
    format!("Cookie: {}\r\n", cookie.unwrap())
}
