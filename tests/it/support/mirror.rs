//! Running the mirror as people do: a directory, a document, the binary.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// One mirror in a directory of its own.
pub struct Mirror {
    directory: TempDir,
}

/// What came of one run.
pub struct Ran {
    pub code: Option<i32>,
    pub summary: Value,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Codes of the warnings or errors.
    pub fn codes(&self, level: &str) -> Vec<String> {
        let list = self.summary[level].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|r| r["code"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl Mirror {
    pub fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes `content` to a file beside the state.
    pub fn file(&self, name: &str, content: &Value) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path
    }

    /// `afferent mirror COMMAND ... --state-dir`, with nothing else in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
        command
            .arg("mirror")
            .args(arguments)
            .arg("--state-dir")
            .arg(self.state())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Puts these tables there.
    pub fn load(&self, tables: &Value) {
        let path = self.file("load.json", tables);
        let output = self.output(&["load", path.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "load: {said}");
    }

    /// All tables.
    pub fn dump(&self) -> Value {
        let output = self.output(&["dump"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dump: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The audit log.
    pub fn audit(&self) -> Value {
        let output = self.output(&["audit", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Whether indexes and rows agree.
    pub fn check(&self) {
        let output = self.output(&["check"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "check: {said}");
    }

    /// One cycle from a document.
    pub fn run(&self, document: &Value, arguments: &[&str]) -> Ran {
        let path = self.file("core.json", document);
        self.run_from(&format!("file:{}", path.display()), arguments)
    }

    /// One cycle from an address.
    pub fn run_from(&self, core: &str, arguments: &[&str]) -> Ran {
        let mut all = vec!["run", "--once", "--json", "--core", core];
        all.extend(arguments);
        finish(&self.output(&all))
    }
}

/// What a finished run said.
pub fn finish(output: &Output) -> Ran {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Ran {
        code: output.status.code(),
        summary: serde_json::from_str(&stdout).unwrap_or_default(),
        stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A dump without what is never the same twice.
pub fn without_times(dump: &Value) -> Value {
    let mut dump = dump.clone();
    for row in dump["rack"].as_array_mut().into_iter().flatten() {
        for column in ["created_at", "updated_at"] {
            row.as_object_mut().unwrap().remove(column);
        }
    }
    dump
}

/// Where a test may look for a file of the repository.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}
