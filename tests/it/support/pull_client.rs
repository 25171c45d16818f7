//! A client of an agent that shares no code with it: Python's protobuf and a schema made from field numbers.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The foreign client as a process.
pub struct Client {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    /// Of the first generation of the protocol.
    pub fn of(socket: &Path) -> Self {
        Self::of_generation(socket, "first")
    }

    pub fn of_generation(socket: &Path, generation: &str) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/support/pull_client.py"
        );
        // The system's Python: that is the one which has the system's protobuf.
        let mut child = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(socket)
            .arg(generation)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with protobuf, see packaging/install-deps.sh");
        Self {
            requests: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub fn send(&mut self, request: &Value) {
        writeln!(self.requests, "{request}").unwrap();
    }

    pub fn receive(&mut self) -> Value {
        let answer = self.receive_any();
        assert_eq!(answer["unknown_fields"], Value::Null, "{answer}");
        answer
    }

    /// An answer that may have fields of the other generation in it.
    pub fn receive_any(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect("an answer from the client");
        assert_eq!(answer["failed"], Value::Null, "{answer}");
        answer
    }

    pub fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        self.receive()
    }

    pub fn get(&mut self, fields: &Value) -> Value {
        self.ask(&json!({ "meta": {"request_id": "t"}, "get_report": fields }))
    }

    /// As a peer that reads both generations.
    pub fn get_report_v1(&mut self, fields: &Value) -> Value {
        let meta = json!({ "request_id": "t", "capabilities": ["report_v1"] });
        self.send(&json!({ "meta": meta, "get_report": fields }));
        self.receive_any()
    }

    pub fn refusal(&mut self, request: &Value) -> String {
        let answer = self.ask(request);
        assert_eq!(answer["get_report"], Value::Null, "{answer}");
        assert_ne!(answer["error"]["message"], Value::Null, "{answer}");
        answer["error"]["code"].as_str().unwrap().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
