//! Questions about the fleet, and their answers.
//!
//! ```text
//! FleetQuery ──► one snapshot of sense.redb ──► FleetAnswer, as JSON
//! ```
//!
//! The running service answers on its control socket, beside its loop; where none runs the same code reads the
//! file. Every answer is of one commit and bounded: what is longer comes in pages, of which each is of a commit
//! of its own.

mod changes;
pub mod find;
mod guests;
mod id_map;
mod named;
mod sbom;
mod show;
mod since;
mod versions;
mod view;

use super::row::GuestState;
use crate::clock::WallTime;
use crate::sense::{CACHE, DATABASE};
use crate::store::{Opening, Snapshot, Store, StoreError, TxError};
pub use changes::{ChangeLine, ChangesAnswer};
pub use guests::{FindAnswer, GuestLine, GuestsAnswer};
use redb::ReadTransaction;
pub use sbom::SbomAnswer;
use serde::{Deserialize, Serialize};
pub use show::{DiffAnswer, ExportAnswer, ShowAnswer};
pub use since::{ChangeLog, ChangePath, ChangeStep, MOST_STEPS, ReportName};
use std::path::Path;
pub use versions::{DriftAnswer, DriftPlace, VersionsAnswer};
use view::FleetView;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FleetQuery {
    /// One line a guest.
    Guests {
        /// Only guests of this OS.
        os: Option<String>,
    },
    /// Guests with a package.
    Find {
        /// See [`find::PackageFilter`].
        package: String,
        /// Only packages of this architecture.
        arch: Option<String>,
        /// Only guests of this OS.
        os: Option<String>,
        /// The guests of which no package matches.
        not: bool,
        /// Only guests that run another kernel than the newest of those packages.
        running: bool,
    },
    /// Every version of a package.
    Versions {
        /// Its name.
        name: String,
        /// Only on guests of this OS.
        #[serde(default)]
        os: Option<String>,
    },
    /// Every package with the number of its versions.
    Drift {
        /// Only on guests of this OS.
        os: Option<String>,
    },
    /// A guest with its packages and history.
    Show {
        /// Its id.
        vm: String,
        /// The packages as they were then, in milliseconds since 1970.
        at: Option<u64>,
    },
    /// The change log, oldest first.
    Changes {
        /// From this time on, in milliseconds since 1970.
        since: Option<u64>,
        /// Only of this guest.
        vm: Option<String>,
        /// Only with a package of this name in it.
        package: Option<String>,
        /// Only rows behind this number.
        after: Option<u64>,
    },
    /// How the packages of two guests differ.
    Diff {
        /// Ids of the two.
        vms: (String, String),
    },
    /// Guests with all their packages, in pages.
    Export {
        /// Only this guest.
        vm: Option<String>,
        /// Only guests behind this one.
        after: Option<String>,
    },
    /// Guests as bills of materials, in pages.
    Sbom {
        /// Only this guest.
        vm: Option<String>,
        /// Only guests behind this one.
        after: Option<String>,
    },
}

/// An answer.
#[derive(Serialize)]
#[serde(untagged)]
pub enum FleetAnswer {
    /// To [`FleetQuery::Guests`].
    Guests(GuestsAnswer),
    /// To [`FleetQuery::Find`].
    Find(FindAnswer),
    /// To [`FleetQuery::Versions`].
    Versions(VersionsAnswer),
    /// To [`FleetQuery::Drift`].
    Drift(DriftAnswer),
    /// To [`FleetQuery::Show`].
    Show(Box<ShowAnswer>),
    /// To [`FleetQuery::Changes`].
    Changes(ChangesAnswer),
    /// To [`FleetQuery::Diff`].
    Diff(DiffAnswer),
    /// To [`FleetQuery::Export`].
    Export(ExportAnswer),
    /// To [`FleetQuery::Sbom`].
    Sbom(SbomAnswer),
    /// There is none.
    Error {
        /// What is wrong, in words.
        error: String,
        /// Whether the question is at fault.
        is_usage: bool,
        /// Whether it is about a guest that is not here.
        #[serde(skip)]
        is_unknown: bool,
    },
}

/// Which part of a long list is wanted: by default all that an answer can hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerPage {
    /// Only guests behind this one; of [`FleetQuery::Drift`], packages behind this [`DriftPlace`].
    pub after: Option<String>,
    /// Most guests, packages or changes.
    pub limit: Option<usize>,
}

/// What the sensor knows of a guest beside its report: its state, if it runs.
pub type States<'s> = &'s dyn Fn(&str) -> Option<&'static str>;

impl FleetQuery {
    /// One word, for the control socket.
    pub fn to_word(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        // Spaces are within strings only.
        json.replace(' ', "\\u0020")
    }

    /// The question in such a word.
    ///
    /// # Errors
    /// It is none that this version knows.
    pub fn from_word(word: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(word)
    }

    /// Whether the answer has the state of guests.
    pub fn shows_states(&self) -> bool {
        matches!(
            self,
            Self::Guests { .. } | Self::Find { .. } | Self::Show { .. }
        )
    }

    /// The answer of a running service.
    pub fn ask(&self, store: &Store, states: States<'_>) -> FleetAnswer {
        self.ask_page(store, states, &AnswerPage::default())
    }

    /// A part of that.
    pub fn ask_page(&self, store: &Store, states: States<'_>, page: &AnswerPage) -> FleetAnswer {
        answered(store.read(|tx| self.answer(tx, states, page)))
    }

    /// The answer of a file that no service writes to.
    pub fn ask_snapshot(&self, snapshot: &Snapshot) -> FleetAnswer {
        let page = AnswerPage::default();
        answered(snapshot.read(|tx| self.answer(tx, &|_| None, &page)))
    }

    fn answer(
        &self,
        tx: &ReadTransaction,
        states: States<'_>,
        page: &AnswerPage,
    ) -> Result<FleetAnswer, TxError> {
        let view = FleetView::open(tx)?;
        match self {
            Self::Guests { os } => guests::list(&view, os.as_deref(), states, page),
            Self::Find {
                package,
                arch,
                os,
                not,
                running,
            } => match package.parse() {
                Ok(package) => guests::find(
                    &view,
                    &guests::Wanted {
                        package,
                        arch: arch.as_deref(),
                        os: os.as_deref(),
                        not: *not,
                        running: *running,
                    },
                    states,
                    page,
                ),
                Err(error) => Ok(FleetAnswer::usage(&error)),
            },
            Self::Versions { name, os } => versions::of_package(&view, name, os.as_deref()),
            Self::Drift { os } => versions::drift(&view, os.as_deref(), page),
            Self::Show { vm, at } => show::show(&view, vm, at.map(WallTime::from_unix_ms), states),
            Self::Changes {
                since,
                vm,
                package,
                after,
            } => {
                let wanted = changes::ChangeFilter {
                    since: since.map(WallTime::from_unix_ms),
                    vm: vm.as_deref(),
                    package: package.as_deref(),
                    after: *after,
                };
                changes::list(&view, &wanted, page.limit)
            }
            Self::Diff { vms } => show::diff(&view, &vms.0, &vms.1),
            Self::Export { vm, after } => show::export(&view, vm.as_deref(), after.as_deref()),
            Self::Sbom { vm, after } => sbom::sbom(&view, vm.as_deref(), after.as_deref()),
        }
    }
}

/// The newest change, and the number behind which the next one will be. A baseline is none.
///
/// # Errors
/// The file cannot be read.
pub fn newest_change(store: &Store) -> Result<(Option<ChangeLine>, Option<u64>), StoreError> {
    store.read(|tx| changes::newest(&FleetView::open(tx)?))
}

/// The answer of the file in this directory, which no service writes to.
///
/// # Errors
/// The file cannot be read.
pub fn look(state_dir: &Path, query: &FleetQuery) -> Result<FleetAnswer, StoreError> {
    let opening = || Snapshot::open(&state_dir.join(DATABASE), CACHE);
    let opened = match opening()? {
        Opening::NotClosed => {
            // A sensor was killed: opening the file for writing closes it as it should have been.
            drop(Store::open(state_dir, DATABASE, CACHE)?);
            opening()?
        }
        other => other,
    };
    Ok(match opened {
        Opening::Snapshot(snapshot) => query.ask_snapshot(&snapshot),
        Opening::Absent | Opening::NotClosed => {
            let path = state_dir.join(DATABASE);
            FleetAnswer::failed(format!("{}: cannot be read", path.display()))
        }
    })
}

fn answered(answer: Result<FleetAnswer, StoreError>) -> FleetAnswer {
    answer.unwrap_or_else(|error| FleetAnswer::failed(error.to_string()))
}

impl FleetAnswer {
    /// The question is at fault.
    pub fn usage(what: &impl ToString) -> Self {
        Self::Error {
            error: what.to_string(),
            is_usage: true,
            is_unknown: false,
        }
    }

    /// Notes how many guests there are, with a report or not.
    pub fn note_roster(&mut self, guests: usize) {
        match self {
            Self::Guests(answer) => answer.roster.of(guests),
            Self::Find(answer) => answer.roster.of(guests),
            _ => {}
        }
    }

    /// There is no answer.
    pub fn failed(error: String) -> Self {
        Self::Error {
            error,
            is_usage: false,
            is_unknown: false,
        }
    }

    /// A guest that is asked for is not here.
    fn unknown(vm: &str) -> Self {
        Self::Error {
            error: format!(
                "no report of a guest {vm:?} is stored; `afferent fleet` lists those that are"
            ),
            is_usage: false,
            is_unknown: true,
        }
    }
}

/// `ID-VERSION_ID`, as `--os` takes it.
fn os_of(state: &GuestState<'_>) -> String {
    match (state.os_id, state.os_version) {
        (id, "") => id.to_owned(),
        (id, version) => format!("{id}-{version}"),
    }
}

fn is_of_os(wanted: Option<&str>, state: &GuestState<'_>) -> bool {
    wanted.is_none_or(|wanted| find::matches_os(wanted, state.os_id, state.os_version))
}

#[cfg(test)]
mod tests;
