//! What an answer means: a report, word that nothing changed that can be true, or a [`Failure`].

use super::failure::Failure;
use super::schedule::Ask;
use crate::clock::WallTime;
use crate::report::{
    Digest, Envelope, Epoch, Facts, Generation, GuestId, ReportKey, Trigger, VmId, facts,
};
use crate::store::pending_table::GuestRow;
use crate::transport::DialAddress;
use crate::wire::message::ErrorCode;
use crate::wire::method;
use crate::wire::response::{DecodeError, Payload, ReportError, Response};

/// What a guest said.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Whether it can hold a wait.
    pub waits: bool,
    /// Which machine it is, if it says so.
    pub guest_id: Option<GuestId>,
    /// A report, or word that nothing changed.
    pub report: Option<Box<Envelope<'a>>>,
}

/// What the bytes of an answer mean. `row` is what is known of the guest; `ask` what was asked.
pub fn understand<'a>(
    bytes: &'a [u8],
    vm: &VmId,
    address: &DialAddress,
    row: &GuestRow,
    ask: Ask,
) -> Result<Answer<'a>, Failure> {
    let response = Response::decode(bytes).map_err(|error| match error {
        DecodeError::Malformed => Failure::Malformed,
        DecodeError::TooMuch => Failure::TooLarge,
    })?;
    let meta = response.meta;
    let said = match response.payload {
        Some(Payload::Report(said)) => said,
        Some(Payload::Error(error)) => {
            return Err(match ErrorCode::try_from(error.code) {
                Ok(ErrorCode::Busy) => Failure::Busy,
                Ok(ErrorCode::NotReady) => Failure::NotReady,
                Ok(ErrorCode::UnknownMethod) => Failure::UnknownMethod,
                _ => Failure::AgentError(error.message.chars().take(200).collect()),
            });
        }
        None => return Err(Failure::Malformed),
    };
    let guest_id = meta
        .facts
        .get(facts::GUEST_ID)
        .and_then(|id| id.parse::<GuestId>().ok());
    let waits = meta
        .supported_methods
        .iter()
        .any(|m| m == method::WAIT_REPORT);
    let epoch = Epoch::new(meta.epoch);
    let generation = Generation::new(meta.report_generation);
    let generated_at = meta.report_generated_at.map(Into::into).unwrap_or_default();
    if said.unchanged {
        let claim = Claim {
            key: generation.map(|generation| ReportKey { epoch, generation }),
            digest: meta
                .facts
                .get(facts::REPORT_DIGEST)
                .and_then(|d| d.parse().ok()),
            guest_id: guest_id.as_ref(),
            generated_at,
        };
        if ask == Ask::Full || !claim.may_be(row) {
            return Err(Failure::FalseUnchanged);
        }
        return Ok(Answer {
            waits,
            guest_id,
            report: None,
        });
    }
    let index = said.index.ok_or(Failure::Malformed)?;
    let generation = generation.ok_or(Failure::Malformed)?;
    let content = facts::content_of(&meta.facts);
    let report = index.into_report(content).map_err(|error| match error {
        ReportError::Empty => Failure::EmptyReport,
        ReportError::Nameless { .. } => Failure::Malformed,
        ReportError::Unsuccessful(why) => Failure::ScanFailed(why.chars().take(200).collect()),
    })?;
    let envelope = Envelope {
        vm: vm.clone(),
        address: address.to_string(),
        guest_id: guest_id.clone(),
        key: ReportKey { epoch, generation },
        digest: report.digest(),
        trigger: Trigger::from_fact(meta.facts.get(facts::SCAN_TRIGGER).map(String::as_str)),
        generated_at,
        agent_version: meta.agent_version.chars().take(64).collect(),
        facts: bounded(meta.facts),
        report,
    };
    Ok(Answer {
        waits,
        guest_id,
        report: Some(Box::new(envelope)),
    })
}

/// What an agent says that has nothing new.
struct Claim<'a> {
    key: Option<ReportKey>,
    digest: Option<Digest>,
    guest_id: Option<&'a GuestId>,
    generated_at: WallTime,
}

impl Claim<'_> {
    /// Whether it can be true: an agent that restarted and counts anew, or another machine behind
    /// the same address, must not pass for the one that is known.
    fn may_be(&self, row: &GuestRow) -> bool {
        let Some(known) = row.known else {
            return false;
        };
        let same_machine = match (self.guest_id, &row.guest_id) {
            (Some(now), Some(then)) => now == then,
            _ => true,
        };
        let same_content = match self.digest {
            Some(digest) => digest == known.digest,
            None => self.key == Some(known.key),
        };
        let has_epoch = self.key.is_some_and(|key| key.epoch.is_some());
        let same_scan = has_epoch
            || self.digest.is_some()
            || self.generated_at == WallTime::default()
            || self.generated_at == row.generated_at;
        same_machine && same_content && same_scan
    }
}

/// Facts that are kept: enough for any agent, too few to fill a disk with.
fn bounded(facts: Facts) -> Facts {
    const MOST: usize = 64;
    const LONGEST: usize = 1024;
    facts
        .into_iter()
        .filter(|(name, value)| name.len() <= LONGEST && value.len() <= LONGEST)
        .take(MOST)
        .collect()
}
