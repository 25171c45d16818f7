//! Answers with many guests: the list, and `find`.

use super::find::{self, PackageFilter};
use super::named::{FoundPackage, NamedPackage, NamedPackages};
use super::view::FleetView;
use super::{AnswerPage, FleetAnswer, States, is_of_os, os_of};
use crate::report::evr;
use crate::sense::fleet::row::GuestState;
use crate::store::TxError;
use serde::Serialize;
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// Guests in one answer.
pub(super) const MOST_GUESTS: usize = 50_000;

/// A guest on one line.
#[derive(Serialize)]
pub struct GuestLine {
    vm: String,
    os: String,
    os_name: String,
    packages: u32,
    agent: String,
    report: String,
    changed_at: String,
    seen_at: String,
    /// As `afferent status` has it; `None` when no service runs.
    state: Option<&'static str>,
    kernel_running: Option<String>,
    kernel_installed: Option<String>,
    reboot_needed: Option<String>,
    provenance: Option<String>,
}

impl GuestLine {
    pub(super) fn new(vm: &str, state: &GuestState<'_>, states: States<'_>) -> Self {
        let fact = |name| state.fact(name).map(str::to_owned);
        Self {
            vm: vm.to_owned(),
            os: os_of(state),
            os_name: state.os_name.to_owned(),
            packages: state.packages,
            agent: state.agent_version.to_owned(),
            report: state.key.to_string(),
            changed_at: state.changed_at.to_string(),
            seen_at: state.seen_at.to_string(),
            state: states(vm),
            kernel_running: fact("kernel_running"),
            kernel_installed: fact("kernel_installed"),
            reboot_needed: fact("reboot_needed"),
            provenance: fact("provenance"),
        }
    }
}

/// How much of the roster an answer is about.
#[derive(Default, Serialize)]
pub(super) struct RosterShare {
    /// Guests of the roster whose report was looked at.
    #[serde(skip)]
    stored: usize,
    /// Those of which none is stored yet; 0 when no service runs.
    not_stored: usize,
}

impl RosterShare {
    pub(super) fn of(&mut self, guests: usize) {
        self.not_stored = guests.saturating_sub(self.stored);
    }
}

/// Guests of one page, in the order of their ids.
struct PageOf<'a, T> {
    page: &'a AnswerPage,
    rows: Vec<T>,
    next: Option<String>,
    /// The guest of the last row.
    last: String,
}

impl<'a, T> PageOf<'a, T> {
    fn new(page: &'a AnswerPage) -> Self {
        Self {
            page,
            rows: Vec::new(),
            next: None,
            last: String::new(),
        }
    }

    /// Takes a guest along if it is of this page. Guests behind the page are looked at as well: they count.
    fn add(&mut self, vm: &str, row: impl FnOnce() -> T) {
        if self.page.after.as_deref().is_some_and(|after| vm <= after) || self.next.is_some() {
            return;
        }
        if self.rows.len() == self.page.limit.unwrap_or(MOST_GUESTS).min(MOST_GUESTS) {
            self.next = Some(std::mem::take(&mut self.last));
            return;
        }
        self.rows.push(row());
        vm.clone_into(&mut self.last);
    }

    /// Whether an answer without a limit is full.
    fn is_full(&self) -> ControlFlow<()> {
        match self.next.is_some() && self.page.limit.is_none() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// The guests.
#[derive(Serialize)]
pub struct GuestsAnswer {
    guests: Vec<GuestLine>,
    #[serde(flatten)]
    pub(super) roster: RosterShare,
    /// Behind this guest the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) fn list(
    view: &FleetView,
    os: Option<&str>,
    states: States<'_>,
    page: &AnswerPage,
) -> Result<FleetAnswer, TxError> {
    let (mut guests, mut roster) = (PageOf::new(page), RosterShare::default());
    view.guests(None, |vm, state| {
        roster.stored += usize::from(states(vm).is_some());
        if is_of_os(os, &state) {
            guests.add(vm, || GuestLine::new(vm, &state, states));
        }
        guests.is_full()
    })?;
    Ok(FleetAnswer::Guests(GuestsAnswer {
        guests: guests.rows,
        roster,
        next: guests.next,
    }))
}

/// What `find` looks for.
pub(super) struct Wanted<'a> {
    pub(super) package: PackageFilter,
    pub(super) arch: Option<&'a str>,
    pub(super) os: Option<&'a str>,
    pub(super) not: bool,
    pub(super) running: bool,
}

/// A guest that was found.
#[derive(Serialize)]
pub(super) struct FoundGuest {
    vm: String,
    os: String,
    /// Those that match; with `--not`, those of the name.
    packages: Vec<FoundPackage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_running: Option<String>,
}

/// The guests that were found.
#[derive(Serialize)]
pub struct FindAnswer {
    guests: Vec<FoundGuest>,
    /// Guests that were looked at.
    looked_at: usize,
    #[serde(flatten)]
    pub(super) roster: RosterShare,
    /// Guests whose agent does not say which kernel runs, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<usize>,
    /// Behind this guest the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) fn find(
    view: &FleetView,
    wanted: &Wanted<'_>,
    states: States<'_>,
    page: &AnswerPage,
) -> Result<FleetAnswer, TxError> {
    let package = &wanted.package;
    let matches = |version: &str| package.matches_version(version);
    let named = NamedPackages::read(view, &package.name, wanted.arch, matches)?;
    let (mut guests, mut looked_at, mut unknown) = (PageOf::new(page), 0, 0);
    let (mut roster, mut held) = (RosterShare::default(), Vec::new());
    view.guests(None, |vm, state| {
        roster.stored += usize::from(states(vm).is_some());
        if !is_of_os(wanted.os, &state) {
            return ControlFlow::Continue(());
        }
        looked_at += 1;
        held.clear();
        held.extend(named.of(state.ids));
        // Ids are in the order in which packages were first heard of.
        held.sort_by(|a, b| by_version(&a.shown, &b.shown));
        let mut is_found = held.iter().any(|package| package.matches);
        let kernel = state.fact("kernel_running").filter(|_| wanted.running);
        if wanted.running && is_found {
            unknown += usize::from(kernel.is_none());
            is_found = kernel.is_some_and(|kernel| !runs_newest(kernel, &held));
        }
        if is_found != wanted.not {
            let shown = held.iter().filter(|package| package.matches || wanted.not);
            guests.add(vm, || FoundGuest {
                vm: vm.to_owned(),
                os: os_of(&state),
                packages: shown.map(|package| package.shown.clone()).collect(),
                kernel_running: kernel.map(str::to_owned),
            });
        }
        guests.is_full()
    })?;
    Ok(FleetAnswer::Find(FindAnswer {
        guests: guests.rows,
        looked_at,
        roster,
        unknown: wanted.running.then_some(unknown),
        next: guests.next,
    }))
}

/// The order in which versions of one name are shown: the oldest first.
fn by_version(a: &FoundPackage, b: &FoundPackage) -> Ordering {
    evr::compare_versions(&a.version, &b.version).then_with(|| a.arch.cmp(&b.arch))
}

/// Whether this kernel is the newest of those installed.
fn runs_newest(kernel: &str, installed: &[&NamedPackage]) -> bool {
    let versions = installed.iter().map(|package| &*package.shown.version);
    let newest = versions.max_by(|a, b| evr::compare_versions(a, b));
    newest.is_some_and(|newest| find::runs(kernel, newest))
}
