//! What systemd is told of a service, as sd_notify(3) says, without waiting for it.
//!
//! The socket of `NOTIFY_SOCKET` has a queue, and writing to a full one waits until somebody reads: a service that
//! waits there serves nobody. What the queue does not take is sent before the next message if the service's state
//! is in it. A sign of life is dropped: it says nothing later, and another one follows.

use sd_notify::NotifyState;
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Most messages that wait for a place in the queue; beyond this the oldest is dropped.
const MOST_WAITING: usize = 8;

static QUEUE: Mutex<NotifyQueue> = Mutex::new(NotifyQueue::new());

/// Tells systemd, where there is one that listens.
pub fn tell(state: &[NotifyState<'_>]) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    queue.tell(state, |message| send(Path::new(&socket), message));
}

fn send(socket: &Path, message: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.connect(socket)?;
    sender.send(message.as_bytes()).map(drop)
}

/// Messages that the socket's queue did not take, the oldest first.
struct NotifyQueue {
    waiting: VecDeque<String>,
    /// Since the last message that was taken.
    is_full_logged: bool,
}

impl NotifyQueue {
    const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            is_full_logged: false,
        }
    }

    /// Sends what waits and this message, in order, as far as `send` takes them.
    fn tell(&mut self, state: &[NotifyState<'_>], send: impl Fn(&str) -> io::Result<()>) {
        let lines = state.iter().map(|state| format!("{state}\n"));
        self.waiting.push_back(lines.collect());
        while let Some(message) = self.waiting.front() {
            match send(message) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.keep(state);
                }
                Err(error) => tracing::debug!(%error, "systemd was not told"),
                Ok(()) => self.is_full_logged = false,
            }
            self.waiting.pop_front();
        }
    }

    /// The queue is full: the last message waits if the service's state is in it.
    fn keep(&mut self, state: &[NotifyState<'_>]) {
        if !self.is_full_logged {
            self.is_full_logged = true;
            tracing::warn!(
                "nobody reads the socket in NOTIFY_SOCKET, and its queue is full: systemd is told later"
            );
        }
        let is_state = |state: &NotifyState<'_>| {
            use NotifyState::{Ready, Reloading, Stopping};
            matches!(state, Ready | Reloading | Stopping)
        };
        if !state.iter().any(is_state) {
            self.waiting.pop_back();
        }
        if self.waiting.len() > MOST_WAITING {
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NotifyState::{Ready, Reloading, Status, Stopping, Watchdog};
    use std::cell::{Cell, RefCell};

    /// The loss: a service that waits for whoever does not read, or one that systemd takes for one that never began.
    #[test]
    fn a_full_queue_gets_the_state_of_the_service_later_and_no_old_sign_of_life() {
        let (room, taken) = (Cell::new(1), RefCell::new(String::new()));
        let send = |message: &str| {
            let left = room.get();
            if left == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            room.set(left - 1);
            taken.borrow_mut().push_str(message);
            Ok(())
        };
        let mut queue = NotifyQueue::new();
        for state in [Watchdog, Ready, Watchdog, Status("x"), Reloading, Ready] {
            queue.tell(&[state], send);
        }
        assert_eq!(*taken.borrow(), "WATCHDOG=1\n");
        room.set(2);
        queue.tell(&[Watchdog, Status("y")], send);
        assert_eq!(*taken.borrow(), "WATCHDOG=1\nREADY=1\nRELOADING=1\n");
        room.set(9);
        queue.tell(&[Stopping], send);
        let all = "WATCHDOG=1\nREADY=1\nRELOADING=1\nREADY=1\nSTOPPING=1\n";
        assert_eq!(*taken.borrow(), all);
        room.set(0);
        for _ in 0..100 {
            queue.tell(&[Ready], send);
        }
        assert_eq!(queue.waiting.len(), MOST_WAITING);
        // Where nobody listens at all, nothing waits.
        queue.tell(&[Ready], |_| Err(io::ErrorKind::ConnectionRefused.into()));
        assert!(queue.waiting.is_empty());
    }
}
