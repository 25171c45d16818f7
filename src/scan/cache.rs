//! Headers known from the scan before, so that a rescan costs in proportion to what changed.
//!
//! What is cheap to look at (number, length, first bytes, or what rpm's own indexes say) tells every
//! change that rpm makes. When the file was written to and none of it tells of a change, somebody
//! else wrote, and everything is read.

use super::Mode;
use super::database::Located;
use super::error::ScanError;
use super::file::{OpenFile, Stamps};
use super::running::{DetailsOf, reboot_reason};
use crate::report::{Package, PackageDetails};
use crate::rpmdb::{self, Backend, Checks, Described, Item, Listed, Place, Scratch};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

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
    check: u64,
}

/// Which database the known headers are of. Numbers given to headers only grow within one, so a
/// last number that went back means that an older copy was put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    /// Device and inode.
    file: (u64, u64),
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
    /// Of the files when they were read last.
    stamps: Option<Stamps>,
    /// One for each package of the report, in the same order.
    packages: Vec<Known>,
    keys: Vec<Known>,
    /// Header number to its place in `packages`, sorted.
    places: Vec<(u32, usize)>,
    /// Whether the checks are those of the database's listing, which agreed with its headers.
    listed: bool,
    /// Header number, and when it was installed, of the packages after whose update a boot is due; sorted.
    installed: Vec<(u32, u32)>,
}

/// How a database differs from what is known of it.
#[derive(Debug)]
pub(super) struct Delta {
    identity: Identity,
    stamps: Stamps,
    /// For each known package, whether it is still there; `None` when nothing known counts.
    kept: Option<Vec<bool>>,
    new: Vec<(Package, Known)>,
    keys: Vec<Known>,
    listed: bool,
    pub(super) headers: usize,
    pub(super) parsed: usize,
    pub(super) skipped: Vec<Skipped>,
    /// Of new packages by header number, those that are wanted.
    details: Vec<(u32, PackageDetails)>,
    wanted: DetailsOf,
}

impl Delta {
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Reads a header; whether the listing says the same of it.
    fn parse(
        &mut self,
        item: Item<'_>,
        this: Known,
        scratch: &mut Scratch,
        listed: Option<&Listed>,
    ) -> bool {
        self.parsed += 1;
        let number = item.number;
        let described = item.blob.and_then(|blob| {
            let described = rpmdb::read(blob, number, scratch)?;
            if let Described::Package(package) = &described
                && self.wanted.has(&package.name)
            {
                let found = rpmdb::details(blob, number, scratch).unwrap_or_default();
                self.details.push((number, found));
            }
            Ok(described)
        });
        match described {
            Ok(Described::Package(package)) => {
                let name = rpmdb::check(package.name.as_bytes());
                self.new.push((package, this));
                listed.is_some_and(|listed| listed.name == name)
            }
            Ok(Described::Key) => {
                self.keys.push(this);
                listed.is_some()
            }
            Err(error) => {
                let why = match &error {
                    rpmdb::Error::Damaged {
                        place: Place::Header(_),
                        ..
                    } => error.to_string(),
                    _ => format!("package header {number}: {error}"),
                };
                self.skipped.push(Skipped { number, why });
                listed.is_some()
            }
        }
    }

    /// Refuses an empty result that cannot be the truth; `another` finds a second database.
    pub(super) fn check(
        &self,
        located: &Located,
        another: impl Fn() -> Option<PathBuf>,
    ) -> Result<(), ScanError> {
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
        let why = match (self.keys.len() as u64, self.identity.last_number) {
            // Keys are headers too, and all that were ever there.
            (keys, last) if keys == last => match another() {
                Some(other) => format!(
                    "is new and lists no package, but {} is there as well: \
                     not the database in use, or a conversion that was never finished",
                    other.display()
                ),
                None => return Ok(()),
            },
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
        stamps: &Stamps,
        database: &mut rpmdb::Database<OpenFile>,
        (mode, wanted): (Mode, DetailsOf),
        progress: &AtomicU64,
    ) -> Result<Delta, rpmdb::Error> {
        let identity = Identity {
            file: (stamps.main.device, stamps.main.inode),
            backend: located.backend,
            last_number: database.last_number()?,
        };
        // A damaged index is no reason to lose the headers.
        let listing = match mode {
            Mode::Once | Mode::Detailed => None,
            Mode::Full | Mode::Incremental => database.listing().unwrap_or_default(),
        };
        let checks = match (mode, &listing) {
            (Mode::Once | Mode::Detailed, _) | (_, Some(_)) => Checks::Skip,
            (_, None) => Checks::Make,
        };
        let known = mode == Mode::Incremental
            && self.listed == listing.is_some()
            && self
                .identity
                .is_some_and(|before| identity.continues(&before));
        if known {
            let new = self.delta(identity, *stamps, true, wanted);
            let listed = match &listing {
                Some(listing) => self.compare_listing(new, listing, database)?,
                None => None,
            };
            let delta = match listed {
                Some(delta) => delta,
                None => {
                    let new = self.delta(identity, *stamps, true, wanted);
                    self.walk(new, listing.as_deref(), checks, database, progress)?
                }
            };
            let written = !self
                .stamps
                .is_some_and(|before| stamps.same_content(&before));
            if !written || self.differs(&delta) {
                return Ok(delta);
            }
        }
        let new = self.delta(identity, *stamps, false, wanted);
        self.walk(new, listing.as_deref(), checks, database, progress)
    }

    /// Whether anything known is gone or anything new is there.
    fn differs(&self, delta: &Delta) -> bool {
        !delta.new.is_empty()
            || delta.keys != self.keys
            || delta.kept.iter().flatten().any(|kept| !kept)
    }

    /// Goes over all headers and reads those that are not known, or all when none count.
    fn walk(
        &self,
        mut delta: Delta,
        listing: Option<&[Listed]>,
        checks: Checks,
        database: &mut rpmdb::Database<OpenFile>,
        progress: &AtomicU64,
    ) -> Result<Delta, rpmdb::Error> {
        let mut scratch = Scratch::default();
        let mut agreed = 0;
        database.headers(checks, &mut |item| {
            delta.headers += 1;
            progress.fetch_add(1, Ordering::Relaxed);
            let listed = listing.and_then(|all| {
                let at = all.binary_search_by_key(&item.number, |l| l.number).ok()?;
                all.get(at)
            });
            let this = Known {
                number: item.number,
                check: listed.map_or_else(|| own_check(&item), |listed| listed.check),
            };
            let known = delta.kept.is_some() && self.still_there(this, &mut delta);
            let agrees = known || delta.parse(item, this, &mut scratch, listed);
            agreed += usize::from(agrees);
            ControlFlow::Continue(())
        })?;
        delta.listed = listing.is_some_and(|all| all.len() == delta.headers && agreed == all.len());
        Ok(delta)
    }

    /// Compares with the listing alone and reads only the headers that it has and we do not;
    /// `None` when that would be most of them, or the listing lies.
    fn compare_listing(
        &self,
        mut delta: Delta,
        listing: &[Listed],
        database: &mut rpmdb::Database<OpenFile>,
    ) -> Result<Option<Delta>, rpmdb::Error> {
        delta.headers = listing.len();
        delta.listed = true;
        let mut unknown = Vec::new();
        for listed in listing {
            let this = Known {
                number: listed.number,
                check: listed.check,
            };
            if !self.still_there(this, &mut delta) {
                unknown.push(*listed);
            }
        }
        if unknown.len() > listing.len() / 4 + 16 {
            return Ok(None);
        }
        let numbers: Vec<u32> = unknown.iter().map(|listed| listed.number).collect();
        let (mut scratch, mut next, mut agree) = (Scratch::default(), unknown.iter(), true);
        let found = database.some_headers(&numbers, &mut |item| {
            if let Some(listed) = next.next() {
                let this = Known {
                    number: listed.number,
                    check: listed.check,
                };
                agree &= delta.parse(item, this, &mut scratch, Some(listed));
            }
            ControlFlow::Continue(())
        })?;
        Ok((found && agree).then_some(delta))
    }

    fn delta(&self, identity: Identity, stamps: Stamps, known: bool, wanted: DetailsOf) -> Delta {
        Delta {
            identity,
            stamps,
            kept: known.then(|| vec![false; self.packages.len()]),
            new: Vec::new(),
            keys: Vec::new(),
            listed: false,
            headers: 0,
            parsed: 0,
            skipped: Vec::new(),
            details: Vec::new(),
            wanted,
        }
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
            None if delta.new.len() != packages.len() => true,
            None => {
                let mut new: Vec<&Package> = delta.new.iter().map(|(package, _)| package).collect();
                new.sort();
                // The origin is found out later and is no part of a header.
                let same = |a: &Package, b: &Package| {
                    (&a.name, &a.evr, &a.arch, &a.source_rpm, &a.modularity_label)
                        == (&b.name, &b.evr, &b.arch, &b.source_rpm, &b.modularity_label)
                        && (&a.vendor, &a.license) == (&b.vendor, &b.license)
                };
                !new.into_iter().zip(packages).all(|(a, b)| same(a, b))
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
            self.stamps = Some(delta.stamps);
            self.listed = delta.listed;
        }
    }

    /// Brings the known headers and the packages of the report up to date, sorted alike.
    pub(super) fn apply(&mut self, delta: Delta, packages: &mut Vec<Package>) {
        match delta.kept {
            Some(kept) if delta.new.len() <= FEW => {
                keep(packages, &kept);
                keep(&mut self.packages, &kept);
                for (package, known) in delta.new {
                    self.insert(package, known, packages);
                }
            }
            kept => {
                let mut kept = kept.unwrap_or_default().into_iter();
                let mut all: Vec<(Package, Known)> = std::mem::take(packages)
                    .into_iter()
                    .zip(std::mem::take(&mut self.packages))
                    .filter(|_| kept.next().unwrap_or(false))
                    .collect();
                if all.is_empty() {
                    // The room of the first scan is used once, not twice.
                    all = delta.new;
                } else {
                    all.extend(delta.new);
                }
                all.sort_by(|(a, x), (b, y)| a.cmp(b).then(x.number.cmp(&y.number)));
                self.packages = all.iter().map(|(_, known)| *known).collect();
                *packages = all.into_iter().map(|(package, _)| package).collect();
            }
        }
        self.places = self
            .packages
            .iter()
            .enumerate()
            .map(|(place, known)| (known.number, place))
            .collect();
        self.places.sort_unstable();
        self.keys = delta.keys;
        self.identity = Some(delta.identity);
        self.stamps = Some(delta.stamps);
        self.listed = delta.listed;
    }

    /// The details that a scan read, by header number and sorted. Of headers that it did not read again, the
    /// times of their install stay known.
    pub(super) fn take_details(&mut self, delta: &mut Delta) -> Vec<(u32, PackageDetails)> {
        let mut details = std::mem::take(&mut delta.details);
        details.sort_unstable_by_key(|(number, _)| *number);
        if delta.kept.is_none() {
            self.installed.clear();
        }
        for (number, details) in &details {
            let at = details.installed_at.unwrap_or(0);
            match self.installed.binary_search_by_key(number, |(n, _)| *n) {
                Ok(place) => self
                    .installed
                    .splice(place..=place, [(*number, at)])
                    .for_each(drop),
                Err(place) => self.installed.insert(place, (*number, at)),
            }
        }
        details
    }

    /// The packages after whose update a boot is due, with the times of their install; to be asked once the
    /// packages are those of the scan.
    pub(super) fn install_times<'a>(
        &self,
        packages: &'a [Package],
    ) -> impl Iterator<Item = (&'a Package, u32)> {
        let known = self.packages.iter().zip(packages);
        known.filter_map(|(known, package)| {
            reboot_reason(&package.name)?;
            let at = self
                .installed
                .binary_search_by_key(&known.number, |(n, _)| *n);
            let (_, time) = self.installed.get(at.ok()?)?;
            Some((package, *time))
        })
    }

    /// Details by header number in the order of the packages.
    pub(super) fn in_order(&self, details: &[(u32, PackageDetails)]) -> Vec<PackageDetails> {
        let of = |known: &Known| {
            let at = details.binary_search_by_key(&known.number, |(number, _)| *number);
            let found = at.ok().and_then(|at| details.get(at));
            found
                .map(|(_, details)| details.clone())
                .unwrap_or_default()
        };
        self.packages.iter().map(of).collect()
    }

    /// Puts a package where sorting would.
    fn insert(&mut self, package: Package, known: Known, packages: &mut Vec<Package>) {
        let before = |other: &Package| other.cmp(&package);
        let (mut from, to) = (
            packages.partition_point(|other| before(other).is_lt()),
            packages.partition_point(|other| before(other).is_le()),
        );
        // The same package several times: by number.
        let same = self.packages.get(from..to).unwrap_or_default();
        from += same.partition_point(|other| other.number < known.number);
        packages.insert(from, package);
        self.packages.insert(from, known);
    }
}

/// New packages that are put in their places one by one rather than sorted in.
const FEW: usize = 16;

/// Leaves out what is not kept.
fn keep<T>(all: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    all.retain(|_| kept.next().copied().unwrap_or(false));
}

/// Of a header in a format that lists nothing beside it.
fn own_check(item: &Item<'_>) -> u64 {
    rpmdb::check([item.length.to_le_bytes(), item.check.to_le_bytes()].as_flattened())
}
