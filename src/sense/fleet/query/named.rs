//! The packages of one name in the fleet: read once in a question, and looked up in the list of each guest.

use super::id_map::IdMap;
use super::view::FleetView;
use crate::sense::fleet::ids::PackedIds;
use crate::store::TxError;
use serde::Serialize;

/// A package that a guest has.
#[derive(Clone, Serialize)]
pub(super) struct FoundPackage {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) arch: String,
}

/// A package of the name, and whether its version is one of those that are looked for.
pub(super) struct NamedPackage {
    pub(super) shown: FoundPackage,
    pub(super) matches: bool,
}

/// All of them, by id.
pub(super) struct NamedPackages(IdMap<NamedPackage>);

impl NamedPackages {
    /// Reads them; `matches` is called once for each distinct one.
    pub(super) fn read(
        view: &FleetView,
        name: &str,
        arch: Option<&str>,
        matches: impl Fn(&str) -> bool,
    ) -> Result<Self, TxError> {
        let mut packages = IdMap::new();
        view.packages_of(name, |id, package| {
            if arch.is_none_or(|arch| arch == package.arch) {
                let shown = FoundPackage {
                    name: package.name.to_owned(),
                    version: package.version.to_owned(),
                    arch: package.arch.to_owned(),
                };
                let matches = matches(package.version);
                packages.push(id, NamedPackage { shown, matches });
            }
        })?;
        Ok(Self(packages))
    }

    /// Those that are in a guest's list.
    pub(super) fn of<'n>(&'n self, ids: &[u8]) -> impl Iterator<Item = &'n NamedPackage> {
        let bounds = self.0.bounds().into_iter();
        let ids = bounds.flat_map(move |(first, last)| PackedIds::new(ids).within(first, last));
        ids.filter_map(|id| self.0.get(id))
    }
}
