//! Dials virtual machines through the API: a websocket on the vsock subresource.
//!
//! ```text
//! seat ── budget: 20 at once, 50 a second ──► dial ──► API server ── virt-api ── virt-handler ── AF_VSOCK ── agent
//! ```
//!
//! A dial that succeeds says nothing of the agent: virt-handler answers 101 before it dials.

use super::KubeError;
use super::budget::{DialBudget, NoDial};
use super::client::KubeClient;
use super::tls_choice::{TlsChoice, TlsMemory};
use super::websocket::WebSocket;
use crate::clock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A port of a virtual machine.
#[derive(Clone, Copy, Debug)]
pub struct VsockTarget<'a> {
    /// Namespace of the VirtualMachineInstance.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// VSOCK port.
    pub port: u32,
}

impl VsockTarget<'_> {
    fn key(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// Dials through one API server.
pub struct VsockDialer {
    client: Arc<KubeClient>,
    choice: TlsChoice,
    memory: Mutex<TlsMemory>,
    seats: Arc<Seats>,
    /// Those that wait for a seat, in order.
    queue: tokio::sync::Mutex<()>,
}

struct Seats {
    budget: Mutex<DialBudget>,
    given_back: Notify,
}

impl Seats {
    fn budget(&self) -> MutexGuard<'_, DialBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one dial and the exchange over it; given back when it is dropped.
pub struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.budget().give_back();
        self.0.given_back.notify_one();
    }
}

impl VsockDialer {
    /// Through the API server of `client`.
    pub fn new(client: Arc<KubeClient>, choice: TlsChoice) -> Self {
        Self {
            client,
            choice,
            memory: Mutex::default(),
            seats: Arc::new(Seats {
                budget: Mutex::new(DialBudget::full(clock::now())),
                given_back: Notify::new(),
            }),
            queue: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits for a seat, first come, first served.
    pub async fn seat(&self) -> Seat {
        let _place = self.queue.lock().await;
        loop {
            let taken = self.seats.budget().take(clock::now());
            match taken {
                Ok(()) => return Seat(self.seats.clone()),
                Err(NoDial::Until(at)) => clock::sleep_until(Some(at)).await,
                // A seat that is given back meanwhile left its notice.
                Err(NoDial::WhileOthers) => self.seats.given_back.notified().await,
            }
        }
    }

    /// Connects. It takes as long as the client's deadlines allow.
    ///
    /// # Errors
    /// The API server, virt-api or virt-handler refuses.
    pub async fn dial(&self, target: VsockTarget<'_>) -> Result<WebSocket, KubeError> {
        let tls = self.memory().choose(&target.key(), self.choice);
        let path = format!(
            "/apis/subresources.kubevirt.io/v1/namespaces/{}/virtualmachineinstances/{}/vsock?port={}&tls={tls}",
            target.namespace, target.name, target.port
        );
        let dialed = self.client.upgrade(&path).await;
        if let Err(KubeError::Refused(refusal)) = &dialed
            && refusal.is_overload()
        {
            let mut budget = self.seats.budget();
            budget.refused(refusal.retry_after, clock::now());
            let (_, allowed, _) = budget.look();
            tracing::warn!(
                allowed,
                "the API server has too many requests: fewer dials at once"
            );
        }
        dialed
    }

    /// The guest answered.
    pub fn answered(&self, target: VsockTarget<'_>) {
        if self.choice == TlsChoice::Auto {
            self.memory().worked(&target.key());
        }
    }

    /// The stream ended without a byte, or with a TLS alert. Whether to dial again at once: the other way.
    pub fn ended_empty(&self, target: VsockTarget<'_>) -> bool {
        self.memory().ended_empty(&target.key(), self.choice)
    }

    /// Dials under way, those allowed, and refusals so far.
    pub fn look(&self) -> (u32, u32, u64) {
        self.seats.budget().look()
    }

    fn memory(&self) -> MutexGuard<'_, TlsMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::KubeSource;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn twenty_have_a_seat_and_the_next_gets_the_first_that_is_given_back() {
        let client = Arc::new(KubeClient::new(KubeSource::InCluster));
        let dialer = VsockDialer::new(client, TlsChoice::Auto);
        let mut seats = Vec::new();
        for _ in 0..20 {
            seats.push(dialer.seat().await);
        }
        let more = tokio::time::timeout(Duration::from_secs(60), dialer.seat()).await;
        assert!(more.is_err());
        assert_eq!(dialer.look().0, 20);
        drop(seats.pop());
        let _seat = dialer.seat().await;
        assert_eq!(dialer.look().0, 20);
    }
}
