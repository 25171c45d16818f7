//! The REST dialect: one paged list per type.
//!
//! ```text
//! pages.rs    reading one list: pages, retries, the token
//! extra.rs    sources of the observed side that not every token may read
//! ```

mod extra;
mod pages;

use super::kinds::names;
use super::{Core, Device, Exchange, Observe, Pull, Pulled, Site, from_result};
use crate::inventory::Kind;
use crate::mirror::entry::CoreEntry;
use crate::mirror::progress::Progress;
use extra::Trays;
use pages::{List, Pages, Refused};
use std::path::PathBuf;
use std::time::Duration;

/// What is needed to ask.
#[derive(Clone, Debug)]
pub struct RestOptions {
    /// `https://host[/prefix]`.
    pub base: String,
    /// Organisation in the path.
    pub org: String,
    /// The one site whose entries count.
    pub site: Option<String>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Longest time for one page, retries included.
    pub deadline: Duration,
    /// Longest time for all lists of a cycle together.
    pub all_lists: Duration,
    /// Longest list, in bytes.
    pub list_cap: u64,
    /// Which optional lists are asked for.
    pub observe: Observe,
}

/// Core over REST.
pub struct RestCore {
    pages: Pages,
    site: Site,
    /// The trays, once they were asked for in this cycle.
    trays: Option<Trays>,
}

impl RestCore {
    /// Asks with `exchange`, whose limits are those of one answer.
    pub fn new(options: RestOptions, exchange: impl Exchange + 'static) -> Self {
        Self {
            site: Site::new(options.site.clone()),
            pages: Pages::new(options, Box::new(exchange)),
            trays: None,
        }
    }

    /// Observed machines, with what the optional lists add. The list holds hosts only, and says which DPUs
    /// are in them: unless those are asked for, nothing is known of them.
    fn machines(&mut self) -> Result<Pulled<Device>, Refused> {
        let mut pulled = self.pages.read(&List {
            kind: Kind::Compute,
            name: "machine",
            query: &[
                ("includeMetadata", "true"),
                ("orderBy", "ID_ASC"),
                ("isMissingOnSite", "false"),
            ],
            id: Device::id,
        })?;
        pulled.entries.retain(|device| !device.is_missing_on_site());
        for device in &mut pulled.entries {
            device.came_over_rest();
        }
        let mut pulled = self.site.keep_own(Kind::Compute, pulled);
        let observe = self.pages.options().observe;
        extra::add_dpus(&mut self.pages, &mut pulled, observe.dpus)?;
        if observe.trays {
            self.trays().add_power_states(&mut pulled)?;
        }
        if observe.endpoints {
            extra::add_endpoints(&mut self.pages, &mut pulled)?;
        }
        Ok(pulled)
    }

    fn trays(&mut self) -> &mut Trays {
        let pages = &mut self.pages;
        self.trays.get_or_insert_with(|| Trays::read(pages))
    }
}

impl Core for RestCore {
    fn begin(&mut self) {
        self.pages.begin();
        self.site.begin();
        self.trays = None;
    }

    fn report_to(&mut self, progress: Progress) {
        self.pages.report_to(progress);
    }

    fn expected(&mut self, kind: Kind) -> Pull<CoreEntry> {
        let names = names(kind);
        let pulled = self.pages.read(&List {
            kind,
            name: names.path,
            query: &[("orderBy", names.order)],
            id: |entry: &CoreEntry| entry.id.as_ref().map(|id| id.0.as_str()),
        });
        let pulled = pulled.map_err(|refused| refused.why);
        from_result(pulled.map(|pulled| self.site.keep_own(kind, pulled)))
    }

    fn observed(&mut self, kind: Kind) -> Pull<Device> {
        let observe = self.pages.options().observe;
        match kind {
            other if names(other).tray.is_some() && observe.trays => self.trays().take(other),
            Kind::Compute => from_result(self.machines().map_err(|refused| refused.why)),
            _ => Pull::Absent,
        }
    }

    fn several_sites(&self) -> Option<String> {
        self.site.ambiguity()
    }

    fn source(&self) -> String {
        let options = self.pages.options();
        format!("{} org {}", options.base, options.org)
    }
}
