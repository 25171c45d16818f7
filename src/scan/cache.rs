//! Headers known from the scan before, so that a rescan costs in proportion to what changed.

use super::Mode;
use super::database::Located;
use super::error::ScanError;
use super::file::OpenFile;
use super::snapshot::FileId;
use crate::report::Package;
use crate::rpmdb::{self, Backend, Described, Scratch};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// A header that could not be read and is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its number in the database.
    pub number: u32,
    /// What is wrong with it.
    pub why: String,
}

/// What tells one header from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    number: u32,
    length: u64,
    check: u64,
}

/// Which database the known headers are of. Numbers given to headers only grow within one, so a
/// last number that went back means that an older copy was put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    file: FileId,
    backend: Backend,
    last_number: u64,
}

impl Identity {
    fn continues(&self, before: &Self) -> bool {
        (self.file, self.backend) == (before.file, before.backend)
            && self.last_number >= before.last_number
    }
}

/// What the last scan knew of each header.
#[derive(Debug, Default)]
pub(super) struct Cache {
    identity: Option<Identity>,
    /// One for each package of the report, in the same order.
    packages: Vec<Known>,
    keys: Vec<Known>,
    /// Header number to its place in `packages`, sorted.
    places: Vec<(u32, usize)>,
}

/// How a database differs from what is known of it.
#[derive(Debug)]
pub(super) struct Delta {
    identity: Identity,
    /// For each known package, whether it is still there; `None` when nothing known counts.
    kept: Option<Vec<bool>>,
    new: Vec<(Package, Known)>,
    keys: Vec<Known>,
    pub(super) headers: usize,
    pub(super) parsed: usize,
    pub(super) skipped: Vec<Skipped>,
}

impl Delta {
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Refuses an empty result that cannot be the truth.
    pub(super) fn check(&self, located: &Located) -> Result<(), ScanError> {
        let kept = self.kept.iter().flatten().any(|kept| *kept);
        if kept || !self.new.is_empty() {
            return Ok(());
        }
        let path = located.main_file.clone();
        if let Some(first) = self.skipped.first() {
            return Err(ScanError::AllDamaged {
                path,
                count: self.skipped.len(),
                first: first.why.clone(),
            });
        }
        let why = match (self.keys.len(), self.identity.last_number) {
            (0, 0) => return Ok(()),
            (0, last) => format!(
                "lists no package although it has given out {last} header numbers: \
                 emptied, or not the database in use"
            ),
            (keys, _) => format!("lists no package, only {keys} public keys"),
        };
        Err(ScanError::Empty { path, why })
    }
}

impl Cache {
    /// Reads the headers that are not known.
    pub(super) fn compare(
        &self,
        located: &Located,
        file: FileId,
        database: &mut rpmdb::Database<OpenFile>,
        mode: Mode,
    ) -> Result<Delta, rpmdb::Error> {
        let identity = Identity {
            file,
            backend: located.backend,
            last_number: database.last_number()?,
        };
        let known = mode == Mode::Incremental
            && self
                .identity
                .is_some_and(|before| identity.continues(&before));
        let mut delta = Delta {
            identity,
            kept: known.then(|| vec![false; self.packages.len()]),
            new: Vec::new(),
            keys: Vec::new(),
            headers: 0,
            parsed: 0,
            skipped: Vec::new(),
        };
        let mut scratch = Scratch::default();
        database.headers(&mut |item| {
            delta.headers += 1;
            let this = Known {
                number: item.number,
                length: item.length,
                check: item.check,
            };
            if known && self.still_there(this, &mut delta) {
                return ControlFlow::Continue(());
            }
            delta.parsed += 1;
            match item
                .blob
                .and_then(|blob| rpmdb::read(blob, item.number, &mut scratch))
            {
                Ok(Described::Package(package)) => delta.new.push((package, this)),
                Ok(Described::Key) => delta.keys.push(this),
                Err(error) => delta.skipped.push(Skipped {
                    number: item.number,
                    why: error.to_string(),
                }),
            }
            ControlFlow::Continue(())
        })?;
        Ok(delta)
    }

    fn still_there(&self, this: Known, delta: &mut Delta) -> bool {
        if self.keys.contains(&this) {
            delta.keys.push(this);
            return true;
        }
        let place = self
            .places
            .binary_search_by_key(&this.number, |(number, _)| *number)
            .ok()
            .and_then(|at| self.places.get(at))
            .map(|(_, place)| *place);
        let Some(place) = place.filter(|place| self.packages.get(*place) == Some(&this)) else {
            return false;
        };
        match delta.kept.as_mut().and_then(|kept| kept.get_mut(place)) {
            Some(kept) => {
                *kept = true;
                true
            }
            None => false,
        }
    }

    /// Whether applying `delta` changes the packages.
    pub(super) fn changes(&self, delta: &Delta, packages: &[Package]) -> bool {
        match &delta.kept {
            Some(kept) => !delta.new.is_empty() || kept.iter().any(|kept| !kept),
            None => {
                let mut new: Vec<&Package> = delta.new.iter().map(|(package, _)| package).collect();
                new.sort();
                !new.into_iter().eq(packages)
            }
        }
    }

    /// Takes over what `delta` says of headers when the packages are the same as before.
    pub(super) fn refresh(&mut self, delta: Delta) {
        if delta.kept.is_none() {
            // The same packages under other numbers: a rebuilt database.
            self.apply(delta, &mut Vec::new());
        } else {
            self.keys = delta.keys;
            self.identity = Some(delta.identity);
        }
    }

    /// Brings the known headers and the packages of the report up to date, sorted alike.
    pub(super) fn apply(&mut self, delta: Delta, packages: &mut Vec<Package>) {
        let mut kept = delta.kept.unwrap_or_default().into_iter();
        let mut all: Vec<(Package, Known)> = std::mem::take(packages)
            .into_iter()
            .zip(std::mem::take(&mut self.packages))
            .filter(|_| kept.next().unwrap_or(false))
            .collect();
        all.extend(delta.new);
        // Nearly sorted already, which this sort takes advantage of.
        all.sort_by(|(a, x), (b, y)| a.cmp(b).then(x.number.cmp(&y.number)));
        (*packages, self.packages) = all.into_iter().unzip();
        self.places = self
            .packages
            .iter()
            .enumerate()
            .map(|(place, known)| (known.number, place))
            .collect();
        self.places.sort_unstable();
        self.keys = delta.keys;
        self.identity = Some(delta.identity);
    }
}

/// The architecture that most packages are of, `noarch` aside; empty when there is none.
pub(super) fn main_arch(packages: &[Package]) -> String {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for arch in packages.iter().filter_map(|p| p.arch.as_deref()) {
        if arch != "noarch" && !arch.is_empty() {
            *counts.entry(arch).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0)))
        .map_or(String::new(), |(arch, _)| arch.to_owned())
}
