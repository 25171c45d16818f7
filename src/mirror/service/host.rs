//! The process of the service: its runtime, and signals as orders.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals of the service.
pub(crate) struct Signals {
    pub(crate) hang_up: Signal,
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
}

/// What the service is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// End after the commit that is being made, if one is.
    Stop,
}

impl Signals {
    pub(super) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hang_up.recv() => Order::Reload,
        }
    }
}

/// The runtime of the service, and its signals: caught before anything that takes time, since an unhandled
/// SIGHUP would end the process.
pub struct ServiceHost {
    pub(super) runtime: Runtime,
    pub(super) signals: Signals,
    /// SIGHUP came while there was no store.
    pub(super) owes_reload: bool,
}

impl ServiceHost {
    /// From now on SIGHUP ends nothing.
    ///
    /// # Errors
    /// The system refused something basic.
    pub fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = runtime.block_on(async {
            Ok::<_, std::io::Error>(Signals {
                hang_up: signal(SignalKind::hangup())?,
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        })?;
        Ok(Self {
            runtime,
            signals,
            owes_reload: false,
        })
    }

    /// Runs `wait` to its end, which reads SIGHUP and says whether the configuration is to be read again.
    pub(crate) fn wait<T>(
        &mut self,
        wait: impl AsyncFnOnce(&mut Signals, &mut bool) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let waiting = wait(&mut self.signals, &mut self.owes_reload);
        self.runtime.block_on(waiting)
    }
}
