//! Who brings the mapping from repositories to CPEs, which one is in use, and what an answer says of it.

use crate::report::MappingHash;
use crate::wire::message::ResponseMeta;
use crate::wire::meta::REPORT_V1;
use crate::wire::method;

/// Who brings the mapping, as StackRox numbers it (0 is "nobody").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdatePath {
    /// A sensor pushes it.
    Sensor = 1,
    /// A file or URL of the agent's own.
    Url = 2,
}

/// Who brings the mapping, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingState {
    /// Who brings it.
    pub path: UpdatePath,
    /// Of the one that is in use; of a report, of the one that it was made with.
    pub hash: Option<MappingHash>,
}

impl MappingState {
    /// What may be asked for.
    fn methods(&self) -> &'static [&'static str] {
        match self.path {
            UpdatePath::Sensor => &[
                method::GET_REPORT,
                method::WAIT_REPORT,
                method::SYNC_REPO_CPE_MAPPING,
            ],
            UpdatePath::Url => &[method::GET_REPORT, method::WAIT_REPORT],
        }
    }

    /// What is answered to a request for anything else.
    pub(super) fn unknown_method(&self) -> String {
        format!("this agent knows {}", self.methods().join(", "))
    }

    /// The meta of every answer, without what belongs to a report.
    pub(super) fn meta(&self) -> ResponseMeta {
        let methods = self.methods().iter();
        ResponseMeta {
            agent_version: env!("CARGO_PKG_VERSION").into(),
            supported_methods: methods.map(|method| (*method).to_owned()).collect(),
            mapping_hash: Some(self.hash.map(|hash| hash.to_string()).unwrap_or_default()),
            update_path: self.path as u32,
            capabilities: vec![REPORT_V1.into()],
            ..ResponseMeta::default()
        }
    }
}
