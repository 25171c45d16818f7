//! `afferent pull` before an operator's terminal.

use afferent::wire::frame;
use afferent::wire::message::{
    Error, ErrorCode, GetReportResponse, ResponseMeta, VmServiceResponse, response,
};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

const BAD: &str = "\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\nforged line";

/// What `pull` does with this answer of an agent.
fn pulled(answer: &VmServiceResponse) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    let frame = frame::encode(answer);
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        stream.write_all(&frame).unwrap();
    });
    let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .arg("pull")
        .arg(format!("unix:{}", socket.display()))
        .output()
        .unwrap();
    serving.join().unwrap();
    output
}

fn unchanged(meta: ResponseMeta) -> VmServiceResponse {
    VmServiceResponse {
        meta: Some(meta),
        payload: Some(response::Payload::GetReport(GetReportResponse {
            index_report: None,
            unchanged: true,
        })),
    }
}

// The loss: a guest that writes lines of its own, or gives orders to the terminal of the operator.
#[test]
fn no_text_of_an_agent_reaches_the_terminal_as_it_came() {
    let version = unchanged(ResponseMeta {
        agent_version: format!("0.1{BAD}"),
        ..ResponseMeta::default()
    });
    let fact = unchanged(ResponseMeta {
        facts: [(format!("name{BAD}"), format!("value{BAD}"))].into(),
        ..ResponseMeta::default()
    });
    let error = VmServiceResponse {
        meta: None,
        payload: Some(response::Payload::Error(Error {
            code: ErrorCode::Internal.into(),
            message: format!("message{BAD}"),
            ..Error::default()
        })),
    };
    for (answer, word) in [(version, "0.1"), (fact, "name"), (error, "message")] {
        let output = pulled(&answer);
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8(shown).unwrap();
        let visible = format!(r"{word}\x1b]0;title\x07\u009b31m\u202e\nforged line");
        assert!(shown.contains(&visible), "{shown:?}");
        let odd = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!shown.contains(odd), "{shown:?}");
    }
}

#[test]
fn a_wait_out_of_range_is_a_usage_error_that_names_the_range() {
    for wait in ["18446744073709551615s", "25h", "584942417355y"] {
        let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["pull", "unix:/nonexistent", "--wait", wait])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wait}: {said}");
        assert!(
            said.contains("--wait") && said.contains("from 0s to 24h"),
            "{wait}: {said}"
        );
    }
}
