//! Which mapping an agent says that it has, and who brings it.

use crate::report::MappingHash;
use crate::wire::meta::Meta;

/// Who brings an agent's mapping, as StackRox numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MappingPath {
    /// It does not say.
    #[default]
    Unspecified,
    /// A sensor.
    Sensor,
    /// A file or URL of the agent's own.
    Own,
}

impl MappingPath {
    /// A word for `status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Sensor => "sensor",
            Self::Own => "url",
        }
    }
}

/// The mapping that an agent's report was made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentMapping {
    /// Who brings it.
    pub path: MappingPath,
    /// Of the mapping; `None`: it has none, or names it in another way.
    pub hash: Option<MappingHash>,
}

impl From<&Meta> for AgentMapping {
    fn from(meta: &Meta) -> Self {
        Self {
            path: match meta.update_path {
                1 => MappingPath::Sensor,
                2 => MappingPath::Own,
                _ => MappingPath::Unspecified,
            },
            hash: meta.mapping_hash.parse().ok(),
        }
    }
}
