//! The control socket: how `afferent status` asks a running service.
//!
//! ```text
//! $RUNTIME_DIRECTORY/control.sock, or STATE_DIR/control.sock where systemd gave no such directory
//!
//! ──► one line of words            status
//! ◄── one JSON object, then closed {"service": "serve", "state": "ok", "reasons": [], ...}
//! ```
//!
//! The word `support` is answered here for every service, see [`super::support`].
//!
//! A service plugs in with [`Control::bind`] and a function from the words to the object; the keys
//! `service`, `state` (`ok` or `degraded`) and `reasons` are common to all. The socket is its
//! owner's alone (mode 0600).

use super::connections::Connections;
use super::request::words;
use super::scrape::Health;
use super::support;
use crate::clock;
use crate::transport::BoundSocket;
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as std_unix;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Name of the socket in its directory.
pub const SOCKET: &str = "control.sock";

/// For a whole conversation, at either end.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longest question.
const LONGEST_LINE: u64 = 1024;

/// Longest answer: ten thousand guests take some 4 MB.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Where a service with this state directory has its socket.
pub fn socket_of(state_dir: &Path) -> PathBuf {
    let runtime = std::env::var_os("RUNTIME_DIRECTORY");
    // systemd separates several with colons; ours has one.
    let first = runtime.and_then(|dirs| std::env::split_paths(&dirs).next());
    first.unwrap_or_else(|| state_dir.to_owned()).join(SOCKET)
}

/// The service's end.
pub struct Control {
    socket: BoundSocket,
    state_dir: PathBuf,
    metrics: Option<Arc<dyn Health>>,
}

impl Control {
    /// Binds the socket of a service with this state directory, in place of one that a killed
    /// service left behind; it is removed with the [`Control`].
    ///
    /// # Errors
    /// The directory cannot be written, or something else has that name. The service can do without.
    pub fn bind(state_dir: &Path) -> io::Result<Self> {
        let path = socket_of(state_dir);
        let socket = BoundSocket::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            socket,
            state_dir: state_dir.to_owned(),
            metrics: None,
        })
    }

    /// Gives `support` this page of metrics too.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<dyn Health>) -> Self {
        Self {
            metrics: Some(metrics),
            ..self
        }
    }

    /// Answers until dropped, with what `answer` makes of the words and of the user who asks. Answers are made beside the loop: that of ten thousand guests takes long
    /// enough to hold it up.
    pub async fn answer<A, F>(self, answer: F)
    where
        A: Serialize,
        F: Fn(&[&str], Option<u32>) -> A + Send + Sync + 'static,
    {
        let (state_dir, metrics) = (self.state_dir, self.metrics);
        let answer = Arc::new(move |words: &[&str], user| match words {
            [support::WORD] => serde_json::to_vec(&support::answer(&state_dir, metrics.as_deref())),
            _ => serde_json::to_vec(&answer(words, user)),
        });
        let mut connections = Connections::default();
        loop {
            let Ok((stream, _)) = self.socket.listener().accept().await else {
                // No descriptors left; others need them more.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let answer = answer.clone();
            connections.serve(async move {
                let exchange = timeout(DEADLINE, exchange(stream, answer)).await;
                if let Ok(Err(error)) = exchange {
                    tracing::debug!(%error, "an exchange over the control socket broke off");
                }
            });
        }
    }
}

async fn exchange<F>(stream: UnixStream, answer: Arc<F>) -> io::Result<()>
where
    F: Fn(&[&str], Option<u32>) -> serde_json::Result<Vec<u8>> + Send + Sync + 'static,
{
    let mut line = Vec::new();
    let user = stream.peer_cred().ok().map(|peer| peer.uid());
    let (from, mut to) = stream.into_split();
    tokio::io::BufReader::new(from.take(LONGEST_LINE))
        .read_until(b'\n', &mut line)
        .await?;
    let made = tokio::task::spawn_blocking(move || {
        let words = words(&line).map_err(io::Error::other)?;
        answer(&words, user).map_err(io::Error::from)
    });
    let mut bytes = made.await.map_err(io::Error::other)??;
    bytes.push(b'\n');
    to.write_all(&bytes).await
}

/// Whether no service is at a socket: there is none, or one that was killed.
pub fn is_not_running(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Asks the service at `socket`. Blocking.
///
/// # Errors
/// Nobody answers there, not to us, or not in time.
pub fn ask(socket: &Path, words: &str) -> io::Result<Value> {
    ask_within(socket, words, DEADLINE)
}

fn ask_within(socket: &Path, words: &str, deadline: Duration) -> io::Result<Value> {
    let mut stream = std_unix::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    writeln!(stream, "{words}")?;
    let mut answer = String::new();
    let read = BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut answer);
    read.map_err(|error| match error.kind() {
        // What the system says of a socket whose time is over, as if one could try again.
        io::ErrorKind::WouldBlock => {
            let limit = clock::show_duration(deadline);
            let why = format!("the service there does not answer within {limit}");
            io::Error::new(io::ErrorKind::TimedOut, why)
        }
        _ => error,
    })?;
    serde_json::from_str(&answer).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_that_does_not_answer_in_time_is_told_from_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(SOCKET);
        let ask = || ask_within(&socket, "status", Duration::from_millis(20)).unwrap_err();
        assert_eq!(ask().kind(), io::ErrorKind::NotFound);
        let _hangs = std_unix::UnixListener::bind(&socket).unwrap();
        let said = ask().to_string();
        assert!(said.contains("does not answer within 20ms"), "{said}");
    }

    #[tokio::test]
    async fn a_question_is_answered_to_its_owner_at_once_beside_silent_peers() {
        let dir = tempfile::tempdir().unwrap();
        drop(std_unix::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let control = Control::bind(dir.path()).unwrap();
        let socket = dir.path().join(SOCKET);
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let silent = socket.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let _silent: Vec<_> = (0..100)
                .map(|_| std_unix::UnixStream::connect(&silent))
                .collect();
            let began = clock::now();
            (ask(&socket, "status all"), clock::now() - began)
        });
        let answering = control.answer(|words, user| json!({"words": words, "user": user}));
        tokio::select! {
            asked = asked => {
                let (answer, took) = asked.unwrap();
                assert_eq!(answer.unwrap(), json!({"words": ["status", "all"], "user": nix::unistd::getuid().as_raw()}));
                assert!(took < DEADLINE / 2, "{took:?}");
            }
            () = answering => unreachable!("it answers for ever"),
        }
        assert!(
            !dir.path().join(SOCKET).exists(),
            "removed when the service ends"
        );
    }
}
