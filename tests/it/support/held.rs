//! rpm's transaction lock, held by another process.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process that holds rpm's lock the way rpm does.
pub struct Held(Child);

impl Held {
    /// Returns when the lock is held; the file is closed, as at the end of a transaction, when
    /// this is dropped.
    pub fn lock(file: &Path) -> Self {
        let script = "import fcntl, os, sys\n\
             f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)\n\
             fcntl.lockf(f, fcntl.LOCK_EX)\n\
             print(flush=True)\n\
             sys.stdin.read()\n";
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", script])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
