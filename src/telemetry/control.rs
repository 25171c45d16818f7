//! The control socket: a running service answers questions of `afferent status`.
//!
//! ```text
//! asker ── one line: a word, perhaps arguments ──► service
//! asker ◄── one JSON document, then the end ────── service
//! ```
//!
//! It is a unix socket of mode 0600 in the runtime directory that systemd gives the service, else
//! in its state directory, so that only its user and root can ask. A service plugs in by giving
//! [`listen`] something that is [`Control`]; the document should have `"service"` (its name),
//! `"version"` and `"trouble"` (a list of sentences, empty while all is well), which is what
//! `status` needs to show it and to choose its exit code.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Name of the socket in its directory.
pub const SOCKET: &str = "control.sock";

/// Longest question, in bytes.
const LONGEST: u64 = 4 << 10;

/// Longest time of one conversation.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers questions.
pub trait Control: Send + Sync + 'static {
    /// The answer to one line; an error is shown to whoever asked.
    fn answer(&self, question: &str) -> Result<serde_json::Value, String>;
}

/// Where a service with this state directory has its socket.
pub fn path(state_dir: &Path) -> PathBuf {
    match std::env::var_os("RUNTIME_DIRECTORY") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory).join(SOCKET),
        _ => state_dir.join(SOCKET),
    }
}

/// Binds the socket. One that a killed service left behind is replaced; one that still answers is
/// another service's.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        if BlockingStream::connect(path).is_ok() {
            let text = format!("{}: another service answers here", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is dropped.
pub async fn listen(listener: UnixListener, control: Arc<dyn Control>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = control.clone();
                tokio::spawn(async move {
                    // Whoever asked may be gone.
                    let _ = tokio::time::timeout(DEADLINE, converse(stream, &*control)).await;
                });
            }
            // Out of descriptors: let others give some back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn converse(stream: UnixStream, control: &dyn Control) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut question = String::new();
    (&mut stream).take(LONGEST).read_line(&mut question).await?;
    let answer = match control.answer(question.trim()) {
        Ok(answer) => answer,
        Err(error) => serde_json::json!({ "error": error }),
    };
    let bytes = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// Asks a running service; blocks.
pub fn ask(path: &Path, question: &str) -> io::Result<serde_json::Value> {
    let mut stream = BlockingStream::connect(path)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    match answer.get("error").and_then(|error| error.as_str()) {
        Some(error) => Err(io::Error::other(error.to_owned())),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Control for Echo {
        fn answer(&self, question: &str) -> Result<serde_json::Value, String> {
            match question {
                "bad" => Err("no such question".into()),
                other => Ok(serde_json::json!({ "asked": other })),
            }
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_and_only_its_owner_may_ask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        drop(bind(&path).unwrap());
        let listener = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        tokio::spawn(listen(listener, Arc::new(Echo)));
        let at = path.clone();
        let asked = tokio::task::spawn_blocking(move || (ask(&at, "hello"), ask(&at, "bad")));
        let (hello, bad) = asked.await.unwrap();
        assert_eq!(hello.unwrap()["asked"], "hello");
        assert_eq!(bad.unwrap_err().to_string(), "no such question");
    }
}
