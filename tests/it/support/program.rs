//! The real binary as a child process.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running `afferent`, in a process group of its own; killed when dropped.
pub struct Program(Child);

impl Program {
    /// Starts `afferent` with these arguments; its log goes to the test's output.
    pub fn start(args: &[&str]) -> Self {
        Self::start_other(Path::new(env!("CARGO_BIN_EXE_afferent")), args)
    }

    /// The same with another program than the one that was built.
    pub fn start_other(program: &Path, args: &[&str]) -> Self {
        let child = Command::new(program)
            .args(args)
            .env("AFFERENT_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Starts this command with its standard error in `log`.
    pub fn start_logged(mut command: Command, log: &Path) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// `afferent sense` under `strace` with these options, which make system calls fail.
    pub fn sense_under_strace(strace: &[&str], state: &Path, deliver: &str, more: &[&str]) -> Self {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null"])
            .args(strace)
            .arg(env!("CARGO_BIN_EXE_afferent"))
            .arg("sense")
            .arg("--state-dir")
            .arg(state)
            .args(["--deliver", deliver])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// `afferent sense` with this state directory.
    pub fn sense(state: &Path, deliver: &str, more: &[&str]) -> Self {
        let state = state.display().to_string();
        let mut args = vec!["sense", "--state-dir", &state, "--deliver", deliver];
        args.extend(more);
        Self::start(&args)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.0.wait().unwrap()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // All of the group, until nobody is left: a process outlives the strace that is killed, and
        // one that is just being started is not there yet.
        let group = format!("-{}", self.0.id());
        super::eventually("all of the group is gone", || {
            let _ = self.0.try_wait();
            let killed = Command::new("kill")
                .args(["-9", "--", &group])
                .stderr(Stdio::null())
                .status();
            killed.is_ok_and(|status| !status.success()).then_some(())
        });
        let _ = self.0.wait();
    }
}

/// What `afferent status` says of the service with this state directory, and its exit code.
pub fn status(state: &Path, more: &[&str]) -> (serde_json::Value, i32) {
    let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["status", "--json", "--state-dir"])
        .arg(state)
        .args(more)
        .output()
        .unwrap();
    let answer = serde_json::from_slice(&out.stdout).unwrap_or_default();
    (answer, out.status.code().unwrap())
}

/// What a service with metrics on this port answers to this path: status line and body.
pub fn http_get(port: u16, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

/// A port on which nobody listens at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
