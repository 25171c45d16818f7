//! Concurrency limits shared by pulling and delivery: permits, and memory.
//!
//! Each limit keeps a share for urgent reports, so routine reports cannot starve them; urgent reports
//! may use the common share too, in the order of asking, so they cannot starve routine ones.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory for the answers of slow guests together, in bytes.
const SLOW_MEMORY_BUDGET: usize = 32 << 20;

/// Memory for the answers that are being received and decoded, in bytes.
const MEMORY_BUDGET: u32 = 64 << 20;

/// Reports that are decoded and wait for the disk: what one commit takes along, and no more.
const STORE_PERMITS: usize = 128;

/// Pushes of a mapping at a time. None of them takes a permit of a report.
pub const PUSHES: usize = 8;

/// Exchanges at a time that ask for a full report.
const FULL_PULLS: usize = 512;

/// One permit in so many is for urgent reports only.
const URGENT_SHARE: usize = 5;

/// Whether a report may overtake others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// It was made because something changed.
    Reactive,
    /// Any other.
    Routine,
}

impl Urgency {
    /// `is_reactive`: the report was made because something changed.
    pub fn of_change(is_reactive: bool) -> Self {
        match is_reactive {
            true => Self::Reactive,
            false => Self::Routine,
        }
    }
}

/// A permit of one limit, free again when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
}

/// One limit: permits for everybody, in the order of asking, and some for urgent reports only.
#[derive(Debug)]
struct ConcurrencyLimit {
    common: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    fn new(common: usize, urgent: usize) -> Self {
        Self {
            common: Arc::new(Semaphore::new(common)),
            urgent: Arc::new(Semaphore::new(urgent)),
        }
    }

    async fn permit(&self, urgency: Urgency) -> Permit {
        let common = self.common.clone().acquire_owned();
        let permit = match urgency {
            Urgency::Routine => common.await,
            // The urgent share first: what is left of the common one is for those that have no choice.
            Urgency::Reactive => tokio::select! {
                biased;
                own = self.urgent.clone().acquire_owned() => own,
                common = common => common,
            },
        };
        Permit {
            _permit: permit.ok(),
        }
    }

    #[cfg(test)]
    fn free(&self) -> usize {
        self.common.available_permits() + self.urgent.available_permits()
    }
}

/// The limits of one sensor.
pub struct ConcurrencyLimits {
    /// Reports that are being received and decoded.
    transfers: ConcurrencyLimit,
    /// Reports that are being stored: small by then, so that a slow disk is given more at a time.
    store_permits: ConcurrencyLimit,
    /// Exchanges that ask for a full report: what guests send beyond that waits in the kernel.
    pub full_pulls: Semaphore,
    /// Work for a processor: one permit each, and one more that only urgent reports may use.
    cpu_permits: ConcurrencyLimit,
    /// Encoding of documents to be sent. Twice as many: the next learns that a permit is free only when
    /// the loop comes by, and Central must not wait for that.
    encode_permits: ConcurrencyLimit,
    /// Bytes of reports that are being received and stored.
    memory_budget: Arc<Semaphore>,
    /// Bytes of reports that arrive slowly.
    pub slow_memory: Semaphore,
}

impl ConcurrencyLimits {
    /// With this many transfers at a time.
    pub fn new(transfers: usize) -> Self {
        let urgent = transfers / URGENT_SHARE;
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            transfers: ConcurrencyLimit::new(transfers - urgent, urgent),
            store_permits: ConcurrencyLimit::new(STORE_PERMITS, STORE_PERMITS / URGENT_SHARE),
            full_pulls: Semaphore::new(FULL_PULLS),
            cpu_permits: ConcurrencyLimit::new(processors, 1),
            encode_permits: ConcurrencyLimit::new(2 * processors, 2),
            memory_budget: Arc::new(Semaphore::new(MEMORY_BUDGET as usize)),
            slow_memory: Semaphore::new(SLOW_MEMORY_BUDGET),
        }
    }

    /// A transfer of this many bytes, as soon as there are a permit and memory for it. More bytes than
    /// the whole budget count as all of it.
    pub async fn transfer(&self, bytes: usize, urgency: Urgency) -> Transfer {
        let permit = self.transfers.permit(urgency).await;
        let bytes = u32::try_from(bytes)
            .unwrap_or(MEMORY_BUDGET)
            .min(MEMORY_BUDGET);
        let memory = self.memory_budget.clone().acquire_many_owned(bytes).await;
        Transfer {
            urgency,
            permit: Some(permit),
            _memory: memory.ok(),
        }
    }

    /// Whether every transfer that is for everybody is taken.
    pub fn has_no_free_transfer(&self) -> bool {
        self.transfers.common.available_permits() == 0
    }

    /// A permit to keep a processor busy for a moment.
    pub async fn cpu_permit(&self, urgency: Urgency) -> Permit {
        self.cpu_permits.permit(urgency).await
    }

    /// A permit to encode a document that is sent.
    pub async fn encode_permit(&self, urgency: Urgency) -> Permit {
        self.encode_permits.permit(urgency).await
    }

    /// Transfers that are free.
    #[cfg(test)]
    pub fn free_transfers(&self) -> usize {
        self.transfers.free()
    }
}

/// A transfer that is allowed, and the memory for its bytes.
#[derive(Debug)]
pub struct Transfer {
    /// Of the report.
    pub urgency: Urgency,
    permit: Option<Permit>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Transfer {
    /// The report is decoded: the transfer is released, so that another may be received while this one
    /// waits for the disk. It keeps its memory until it is stored.
    pub async fn wait_for_store(&mut self, limits: &ConcurrencyLimits) {
        let permit = limits.store_permits.permit(self.urgency).await;
        self.permit = Some(permit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;
    use std::time::Duration;
    use tokio::time::timeout;

    const MOMENT: Duration = Duration::from_secs(1);

    /// Loss prevented: a few guests with the longest answers take all memory.
    #[tokio::test(start_paused = true)]
    async fn the_longest_answers_wait_for_room() {
        let limits = ConcurrencyLimits::new(20);
        let longest = wire::MAX_RESPONSE as usize;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(limits.transfer(longest, Urgency::Routine).await);
        }
        let short = timeout(MOMENT, limits.transfer(1, Urgency::Routine));
        assert!(short.await.is_err(), "no room is left");
        held.pop();
        limits.transfer(longest, Urgency::Routine).await;
    }

    /// Loss prevented: news waits behind a wave of routine reports, or routine reports behind a
    /// guest that calls everything news.
    #[tokio::test(start_paused = true)]
    async fn neither_routine_nor_urgent_reports_take_every_transfer() {
        for (crowd, other, places) in [
            (Urgency::Routine, Urgency::Reactive, 16),
            (Urgency::Reactive, Urgency::Routine, 20),
        ] {
            let limits = ConcurrencyLimits::new(20);
            let mut held = Vec::new();
            while let Ok(transfer) = timeout(MOMENT, limits.transfer(1, crowd)).await {
                held.push(transfer);
            }
            assert_eq!(held.len(), places, "{crowd:?}");
            let waiting = limits.transfer(1, other);
            tokio::pin!(waiting);
            let at_once = timeout(MOMENT, &mut waiting).await.is_ok();
            assert_eq!(at_once, other == Urgency::Reactive, "{other:?}");
            if !at_once {
                // Others of the crowd that come later do not overtake it in the common places.
                let late = limits.transfer(1, crowd);
                tokio::pin!(late);
                assert!(timeout(MOMENT, &mut late).await.is_err());
                held.truncate(0);
                waiting.await;
            }
        }
    }
}
