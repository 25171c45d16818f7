//! How racks belong together, as it was observed: groups, NVLink domains, and the health of racks.

use super::{Pull, Pulled};
use crate::inventory::Json;
use crate::mirror::entry::IdText;
use crate::mirror::entry::quick::ListElement;
use serde::Deserialize;
use serde_json::Value;

/// Everything about the topology of one cycle.
#[derive(Debug)]
pub struct Topology {
    /// Which group each rack is in.
    pub groups: Pull<RackGroup>,
    /// Which NVLink domain the switches of each rack report.
    pub domains: Pull<DomainMember>,
    /// The health of racks.
    pub health: Pull<RackHealth>,
}

impl Topology {
    /// Of a source that knows nothing about it.
    pub const UNKNOWN: Self = Self {
        groups: Pull::Absent,
        domains: Pull::Absent,
        health: Pull::Absent,
    };
}

/// A rack in a group.
#[derive(Clone, Debug, Deserialize)]
pub struct RackGroup {
    #[serde(alias = "rackId")]
    rack_id: Option<IdText>,
    #[serde(alias = "groupId", alias = "rack_group_id", alias = "rackGroupId")]
    group_id: Option<IdText>,
}

/// A rack in an NVLink domain.
#[derive(Clone, Debug, Deserialize)]
pub struct DomainMember {
    #[serde(alias = "rackId")]
    rack_id: Option<IdText>,
    #[serde(
        alias = "domainId",
        alias = "nvlink_domain_id",
        alias = "nvlinkDomainId",
        alias = "nmxc_cluster_id",
        alias = "nmxcClusterId"
    )]
    domain_id: Option<IdText>,
}

/// The health of a rack.
#[derive(Clone, Debug, Deserialize)]
pub struct RackHealth {
    #[serde(alias = "rackId")]
    rack_id: Option<IdText>,
    health: Option<Value>,
}

impl ListElement for RackGroup {}
impl ListElement for DomainMember {}
impl ListElement for RackHealth {}

fn text(id: Option<&IdText>) -> &str {
    id.map_or("", |id| id.0.as_str())
}

impl RackGroup {
    /// Core's rack_id; empty when it is not said.
    pub fn rack_id(&self) -> &str {
        text(self.rack_id.as_ref())
    }

    /// Core's id of the group; empty for a rack in none.
    pub fn group_id(&self) -> &str {
        text(self.group_id.as_ref())
    }
}

impl DomainMember {
    /// Core's rack_id; empty when it is not said.
    pub fn rack_id(&self) -> &str {
        text(self.rack_id.as_ref())
    }

    /// Id of the domain, which is that of the cluster its controllers form.
    pub fn domain_id(&self) -> &str {
        text(self.domain_id.as_ref())
    }
}

impl RackHealth {
    /// Core's rack_id; empty when it is not said.
    pub fn rack_id(&self) -> &str {
        text(self.rack_id.as_ref())
    }

    /// Its health, without what changes although nothing happens.
    pub fn health(&self) -> Option<Json> {
        let mut health = self.health.clone()?;
        super::device::make_quiet(&mut health);
        Some(Json::new(&health))
    }
}

/// A list that counts only as a whole: entries that cannot be read make it a failed pull.
pub(super) fn whole<T>(pull: Pull<T>) -> Pull<T> {
    match pull {
        Pull::Done(Pulled {
            complete: false, ..
        }) => Pull::Failed("an entry could not be read: the list counts only as a whole".into()),
        other => other,
    }
}
