//! Which report of a guest: the epoch of its counter, and the counter.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;

/// Random number drawn when an agent's database is created, or when its machine-id no longer
/// matches. Generations of different epochs cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(NonZeroU32);

impl Epoch {
    /// `None` for 0, which on the wire means "not known".
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number, never 0.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counter of a guest's reports within an epoch, from 1; one more whenever the content changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(u32);

impl Generation {
    /// The first report of an epoch.
    pub const FIRST: Self = Self(1);

    /// `None` for 0, which on the wire means "send everything".
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The number, never 0.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The one after this; `None` when the counter is used up and a new epoch must begin.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one report of a guest: at Central, in acknowledgements, in `--known`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReportKey {
    /// `None` for foreign agents that have no epoch.
    pub epoch: Option<Epoch>,
    /// Counter within the epoch.
    pub generation: Generation,
}

impl ReportKey {
    /// Epoch as it is written on the wire and in keys: 0 when there is none.
    pub fn epoch_or_zero(self) -> u32 {
        self.epoch.map_or(0, Epoch::get)
    }
}

/// `EPOCH:GENERATION`, as `afferent pull --known` takes it.
impl fmt::Display for ReportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch_or_zero(), self.generation)
    }
}

/// Reads `EPOCH:GENERATION`; the generation is at least 1.
impl std::str::FromStr for ReportKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not EPOCH:GENERATION, for example 77:12");
        let (epoch, generation) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            epoch: Epoch::new(epoch.parse().map_err(|_| wrong())?),
            generation: generation
                .parse()
                .ok()
                .and_then(Generation::new)
                .ok_or_else(wrong)?,
        })
    }
}
