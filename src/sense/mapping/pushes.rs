//! Which guests are given the mapping, and when. Pure policy.
//!
//! ```text
//!           answered: another one              next                 finished
//! settled ───────────────────────► due ───────────────► in flight ───────────► settled, or due later
//!    ▲                              │ answered: this one
//!    └──────────────────────────────┘
//! ```
//!
//! Few are in flight at a time and they begin at a bounded pace, so that a new mapping is no storm: ten thousand
//! guests have it after three and a half minutes. A guest that cannot be given the mapping is tried ever more
//! rarely, and so is one that takes it and goes on to report another one.

use super::MappingStatus;
use super::agent::{AgentMapping, MappingPath};
use crate::clock::backoff::Backoff;
use crate::clock::token_bucket::TokenBucket;
use crate::report::{MappingHash, VmId};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Pushes in quick succession, and how many a second after that.
const PACE: (f64, f64) = (10.0, 50.0);

/// Between two attempts at a guest that cannot be given the mapping.
const FAILED: Backoff = Backoff {
    floor: Duration::from_secs(10),
    ceiling: Duration::from_secs(1800),
};

/// Between two pushes of one mapping to a guest that took it, and reports another one: it may wait for the end
/// of a transaction to scan.
const TAKEN: Backoff = Backoff {
    floor: Duration::from_secs(600),
    ceiling: Duration::from_secs(4 * 3600),
};

/// What came of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The guest has it now.
    Taken {
        /// It had another one, or none, before.
        is_new: bool,
    },
    /// The guest's mapping is brought by nobody of us.
    NotManaged,
    /// It could not be given; says why, as visible text.
    Failed(String),
}

impl PushOutcome {
    /// What is counted.
    pub fn status(&self) -> MappingStatus {
        match self {
            Self::Taken { .. } => MappingStatus::SyncSuccess,
            Self::NotManaged => MappingStatus::SyncNotManaged,
            Self::Failed(_) => MappingStatus::SyncError,
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextPush {
    /// Push to this guest; it is in flight from now on.
    To(VmId),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until something happens.
    Idle,
}

/// How a guest stands to the sensor's mapping, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingSync {
    /// Its report was made with it.
    InSync,
    /// It took it; its next report shows it.
    Taken,
    /// It will be given it.
    Due,
    /// The last push failed.
    Error,
    /// It answers that no sensor brings its mapping.
    NotManaged,
    /// It has one of its own, which is the same.
    Own,
    /// It has one of its own, which is another one.
    UrlHashMismatch,
    /// It does not say who brings its mapping.
    Unspecified,
    /// This sensor has no mapping to give.
    NothingToGive,
}

impl MappingSync {
    /// Every word of [`MappingSync::label`].
    pub const ALL: [Self; 9] = [
        Self::InSync,
        Self::Taken,
        Self::Due,
        Self::Error,
        Self::NotManaged,
        Self::Own,
        Self::UrlHashMismatch,
        Self::Unspecified,
        Self::NothingToGive,
    ];

    /// A word for `status` and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Taken => "taken",
            Self::Due => "due",
            Self::Error => "sync_error",
            Self::NotManaged => "sync_not_managed",
            Self::Own => "url",
            Self::UrlHashMismatch => "url_hash_mismatch",
            Self::Unspecified => "unspecified",
            Self::NothingToGive => "nothing_to_give",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Settled,
    Due(Instant),
    InFlight,
}

#[derive(Debug)]
struct Row {
    agent: AgentMapping,
    standing: Standing,
    /// Pushes in a row after which the guest still reports another mapping.
    attempts: u32,
    /// No push before this time.
    not_before: Option<Instant>,
    /// What came of the last push of the current mapping.
    last: Option<PushOutcome>,
}

/// All guests whose agents said which mapping they have.
#[derive(Debug)]
pub struct Pushes {
    current: Option<MappingHash>,
    rows: HashMap<VmId, Row>,
    due: BTreeSet<(Instant, VmId)>,
    in_flight: usize,
    most_in_flight: usize,
    pace: TokenBucket,
}

impl Pushes {
    /// With nothing to push yet, and at most so many pushes at a time.
    pub fn new(most_in_flight: usize, now: Instant) -> Self {
        Self {
            current: None,
            rows: HashMap::new(),
            due: BTreeSet::new(),
            in_flight: 0,
            most_in_flight,
            pace: TokenBucket::full(PACE.0, PACE.1, now),
        }
    }

    /// The sensor's mapping.
    pub fn current(&self) -> Option<MappingHash> {
        self.current
    }

    /// The sensor's mapping is this one from now on. Gives the number of guests whose own mapping turns out to
    /// be another one.
    pub fn set_current(&mut self, hash: MappingHash, now: Instant) -> usize {
        if self.current == Some(hash) {
            return 0;
        }
        self.current = Some(hash);
        self.due.clear();
        let mut mismatches = 0;
        for (vm, row) in &mut self.rows {
            (row.attempts, row.not_before, row.last) = (0, None, None);
            mismatches += usize::from(row.agent.is_own_other_than(hash));
            if row.standing == Standing::InFlight {
                continue;
            }
            row.standing = Standing::Settled;
            if row.agent.lacks(hash) {
                row.standing = Standing::Due(now);
                self.due.insert((now, vm.clone()));
            }
        }
        mismatches
    }

    /// An agent said which mapping it has. Says whether that is one of its own, and another one than it was.
    pub fn answered(&mut self, vm: &VmId, agent: AgentMapping, now: Instant) -> bool {
        let row = self.rows.entry(vm.clone()).or_insert_with(|| Row {
            agent: AgentMapping::default(),
            standing: Standing::Settled,
            attempts: 0,
            not_before: None,
            last: None,
        });
        let was_other = |current| row.agent.is_own_other_than(current) && row.agent == agent;
        let Some(current) = self.current else {
            row.agent = agent;
            return false;
        };
        let is_known = was_other(current);
        row.agent = agent;
        if agent.lacks(current) {
            if row.standing == Standing::Settled {
                let at = row.not_before.map_or(now, |at| at.max(now));
                row.standing = Standing::Due(at);
                self.due.insert((at, vm.clone()));
            }
        } else if row.standing != Standing::InFlight {
            // Whatever was pushed has arrived, or is not wanted.
            if let Standing::Due(at) = row.standing {
                self.due.remove(&(at, vm.clone()));
            }
            row.standing = Standing::Settled;
            (row.attempts, row.not_before, row.last) = (0, None, None);
        }
        agent.is_own_other_than(current) && !is_known
    }

    /// A guest left.
    pub fn forget(&mut self, vm: &VmId) {
        if let Some(row) = self.rows.remove(vm)
            && let Standing::Due(at) = row.standing
        {
            self.due.remove(&(at, vm.clone()));
        }
    }

    /// Decides whom to give the mapping now.
    pub fn next(&mut self, now: Instant) -> NextPush {
        if self.in_flight >= self.most_in_flight {
            return NextPush::Idle;
        }
        let Some((at, _)) = self.due.first() else {
            return NextPush::Idle;
        };
        if *at > now {
            return NextPush::At(*at);
        }
        if !self.pace.take(now) {
            return self
                .pace
                .when(1.0, now)
                .map_or(NextPush::Idle, NextPush::At);
        }
        let Some((_, vm)) = self.due.pop_first() else {
            return NextPush::Idle;
        };
        if let Some(row) = self.rows.get_mut(&vm) {
            row.standing = Standing::InFlight;
        }
        self.in_flight += 1;
        NextPush::To(vm)
    }

    /// A push of this mapping ended. `jitter` is uniform in 0..1.
    pub fn finished(
        &mut self,
        vm: &VmId,
        pushed: MappingHash,
        outcome: PushOutcome,
        now: Instant,
        jitter: f64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let in_flight = |row: &&mut Row| row.standing == Standing::InFlight;
        let Some(row) = self.rows.get_mut(vm).filter(in_flight) else {
            return;
        };
        row.standing = Standing::Settled;
        if self.current != Some(pushed) {
            // Another one came meanwhile; what the guest took shows in none of its answers yet.
            let is_taken = matches!(outcome, PushOutcome::Taken { .. });
            let is_by_sensor = row.agent.path == MappingPath::Sensor;
            if self
                .current
                .is_some_and(|hash| is_by_sensor && is_taken || row.agent.lacks(hash))
            {
                row.standing = Standing::Due(now);
                self.due.insert((now, vm.clone()));
            }
            return;
        }
        row.attempts = row.attempts.saturating_add(1);
        let backoff = match outcome {
            PushOutcome::Taken { .. } => TAKEN,
            PushOutcome::NotManaged | PushOutcome::Failed(_) => FAILED,
        };
        let wait = match outcome {
            PushOutcome::NotManaged => backoff.ceiling,
            _ => backoff.half_jitter(row.attempts, jitter),
        };
        let at = now + wait;
        row.not_before = Some(at);
        // What was not taken is given again by itself, unless the guest answered meanwhile that it has it or has
        // no use for it; the rest shows in the guest's answers.
        if matches!(outcome, PushOutcome::Failed(_)) && row.agent.lacks(pushed) {
            row.standing = Standing::Due(at);
            self.due.insert((at, vm.clone()));
        }
        row.last = Some(outcome);
    }

    /// What the agent of a guest said last.
    pub fn agent(&self, vm: &VmId) -> Option<AgentMapping> {
        self.rows.get(vm).map(|row| row.agent)
    }

    /// How a guest stands to the mapping, and why the last push failed.
    pub fn look(&self, vm: &VmId) -> Option<(MappingSync, Option<&str>)> {
        let row = self.rows.get(vm)?;
        let error = match &row.last {
            Some(PushOutcome::Failed(why)) => Some(why.as_str()),
            _ => None,
        };
        Some((self.sync_of(row), error))
    }

    fn sync_of(&self, row: &Row) -> MappingSync {
        let Some(current) = self.current else {
            return MappingSync::NothingToGive;
        };
        match (row.agent.path, &row.last) {
            (MappingPath::Unspecified, _) => MappingSync::Unspecified,
            (MappingPath::Own, _) if row.agent.hash == Some(current) => MappingSync::Own,
            (MappingPath::Own, _) => MappingSync::UrlHashMismatch,
            _ if row.agent.hash == Some(current) => MappingSync::InSync,
            (_, Some(PushOutcome::Taken { .. })) => MappingSync::Taken,
            (_, Some(PushOutcome::NotManaged)) => MappingSync::NotManaged,
            (_, Some(PushOutcome::Failed(_))) => MappingSync::Error,
            (_, None) => MappingSync::Due,
        }
    }

    /// Number of guests that stand to the mapping in each way.
    pub fn counts(&self) -> [(MappingSync, usize); 9] {
        let mut counts = MappingSync::ALL.map(|sync| (sync, 0));
        for row in self.rows.values() {
            let sync = self.sync_of(row);
            let count = counts.iter_mut().find(|(other, _)| *other == sync);
            if let Some((_, count)) = count {
                *count += 1;
            }
        }
        counts
    }
}

impl AgentMapping {
    /// Whether it is to be given this mapping.
    fn lacks(self, hash: MappingHash) -> bool {
        self.path == MappingPath::Sensor && self.hash != Some(hash)
    }

    /// Whether it has a mapping of its own that is another one.
    fn is_own_other_than(self, hash: MappingHash) -> bool {
        self.path == MappingPath::Own && self.hash != Some(hash)
    }
}

#[cfg(test)]
mod tests;
