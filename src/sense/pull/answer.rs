//! Decoding of answers: a report, an "unchanged" that is consistent with what is known, or a [`Failure`].

use super::agent::AgentInfo;
use super::failure::Failure;
use super::schedule::Ask;
use crate::clock::WallTime;
use crate::report::{
    Envelope, Epoch, Facts, FactsHash, Generation, GuestId, ReportKey, Trigger, VmId, facts,
};
use crate::sense::queue::table::{Echo, GuestRow};
use crate::sense::seen::SeenClock;
use crate::transport::DialAddress;
use crate::wire::fields::DecodeError;
use crate::wire::message::{self as wire, EMPTY_DATABASE, ErrorCode, REASON};
use crate::wire::meta::Meta;
use crate::wire::method;
use crate::wire::response::{Payload, ReportError, Response};

/// The answer of a guest.
#[derive(Debug)]
pub struct GuestAnswer<'a> {
    /// Whether it can hold a wait.
    pub waits: bool,
    /// Its machine's id, if it sends one.
    pub guest_id: Option<GuestId>,
    /// How it names its report, to be sent back to it.
    pub echo: Echo,
    /// Over its facts.
    pub facts: FactsHash,
    /// A report, or facts that changed alone; `None`: nothing changed.
    pub document: Option<Box<Envelope<'a>>>,
}

/// What is known where an answer comes in.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The guest.
    pub vm: &'a VmId,
    /// Where it was reached.
    pub address: &'a DialAddress,
    /// What is known of it.
    pub row: &'a GuestRow,
    /// What it was asked for.
    pub ask: Ask,
    /// Gives a document its time.
    pub seen: &'a SeenClock,
    /// When the pull ended.
    pub now: WallTime,
}

/// Decodes the bytes of an answer. `agent` gets what the agent says of itself, also with a refusal.
///
/// # Errors
/// They are no answer, or one without a report.
pub fn understand<'a>(
    bytes: &'a [u8],
    context: Context<'_>,
    agent: &mut Option<AgentInfo>,
) -> Result<GuestAnswer<'a>, Failure> {
    let Context { row, ask, .. } = context;
    let response = Response::decode(bytes).map_err(|error| match error {
        DecodeError::Malformed => Failure::Malformed,
        DecodeError::TooMuch => Failure::TooLarge,
    })?;
    let meta = response.meta;
    *agent = Some(AgentInfo::of(&meta));
    let said = match response.payload {
        Some(Payload::Report(said)) => said,
        Some(Payload::Error(error)) => {
            return Err(match ErrorCode::try_from(error.code) {
                Ok(ErrorCode::Busy) => Failure::Busy,
                Ok(ErrorCode::NotReady) if is_empty(&error) => Failure::EmptyDatabase {
                    waits: holds_waits(&meta),
                },
                Ok(ErrorCode::NotReady) => Failure::NotReady,
                Ok(ErrorCode::UnknownMethod) => Failure::UnknownMethod,
                Ok(ErrorCode::MappingRequired) => Failure::MappingRequired,
                _ => Failure::AgentError(error.message.as_str().into()),
            });
        }
        Some(Payload::Synced { .. }) | None => return Err(Failure::Malformed),
    };
    let guest_id = meta
        .facts
        .get(facts::GUEST_ID)
        .and_then(|id| id.parse::<GuestId>().ok());
    let waits = holds_waits(&meta);
    let generated_at = meta.generated_at.map(Into::into).unwrap_or_default();
    let (key, echo) = names(&meta, row);
    let facts = FactsHash::of(&bounded(&meta.facts));
    let mut answer = GuestAnswer {
        waits,
        guest_id,
        echo,
        facts,
        document: None,
    };
    let (key, digest, report) = if said.unchanged {
        let claim = UnchangedReply {
            key,
            echo: &answer.echo,
            guest_id: answer.guest_id.as_ref(),
            generated_at,
        };
        if ask.is_full() || !claim.is_consistent_with(row) {
            return Err(Failure::FalseUnchanged);
        }
        // Before version 0.2 nobody noted which facts were sent.
        let facts_changed = row.facts.is_some_and(|before| before != facts);
        match row.known.filter(|_| facts_changed) {
            Some(known) => (known.key, known.digest, None),
            None => return Ok(answer),
        }
    } else {
        let index = said.index.ok_or(Failure::Malformed)?;
        let key = key.ok_or(Failure::Malformed)?;
        let content = facts::content_of(&meta.facts);
        let report = index.into_report(content).map_err(|error| match error {
            ReportError::Empty => Failure::EmptyReport,
            ReportError::Nameless { .. } => Failure::Malformed,
            ReportError::Unsuccessful(why) => Failure::ScanFailed(why.as_str().into()),
        })?;
        (key, report.digest(), Some(report))
    };
    answer.document = Some(Box::new(Envelope {
        vm: context.vm.clone(),
        address: context.address.to_string(),
        guest_id: answer.guest_id.clone(),
        key,
        digest,
        seen_at: context.seen.next(context.now),
        trigger: Trigger::from_fact(meta.facts.get(facts::SCAN_TRIGGER).map(String::as_str)),
        generated_at,
        agent_version: meta.agent_version.chars().take(64).collect(),
        facts: bounded(&meta.facts),
        report,
    }));
    Ok(answer)
}

fn holds_waits(meta: &Meta) -> bool {
    meta.supported_methods
        .iter()
        .any(|m| m == method::WAIT_REPORT)
}

/// Whether the agent has no report because there is no package.
fn is_empty(error: &wire::Error) -> bool {
    error
        .details
        .get(REASON)
        .is_some_and(|r| r == EMPTY_DATABASE)
}

/// How an agent names its report: the key under which it goes on, and what is sent back to the agent.
///
/// An agent that knows only tokens counts nothing, so the sensor counts its different tokens.
fn names(meta: &Meta, row: &GuestRow) -> (Option<ReportKey>, Echo) {
    if meta.has_only_token() {
        let echo = Echo::Token(meta.token.clone());
        let count = match row.echo == echo {
            true => row.tokens,
            false => row.tokens.saturating_add(1),
        };
        let key = Generation::new(count).map(|generation| ReportKey {
            epoch: None,
            generation,
        });
        return (key, echo);
    }
    let key = Generation::new(meta.generation).map(|generation| ReportKey {
        epoch: Epoch::new(meta.epoch),
        generation,
    });
    let issued = meta.facts.get(facts::REPORT_DIGEST);
    let echo = key.map_or(Echo::Nothing, |key| Echo::Pair {
        key,
        digest: issued.and_then(|digest| digest.parse().ok()),
    });
    (key, echo)
}

/// The answer "unchanged".
struct UnchangedReply<'a> {
    key: Option<ReportKey>,
    echo: &'a Echo,
    guest_id: Option<&'a GuestId>,
    generated_at: WallTime,
}

impl UnchangedReply<'_> {
    /// Whether it is about the report that is known: an agent that restarted and counts anew, or another
    /// machine behind the same address, must not pass for the known one.
    fn is_consistent_with(&self, row: &GuestRow) -> bool {
        if row.known.is_none() {
            return false;
        }
        let same_machine = match (self.guest_id, &row.guest_id) {
            (Some(now), Some(then)) => now == then,
            _ => true,
        };
        let (same_content, has_digest) = match (self.echo, &row.echo) {
            (
                Echo::Pair {
                    digest: Some(now), ..
                },
                Echo::Pair {
                    digest: Some(then), ..
                },
            ) => (now == then, true),
            (Echo::Pair { key: now, .. }, Echo::Pair { key: then, .. }) => (now == then, false),
            (Echo::Token(now), Echo::Token(then)) => (now == then, true),
            _ => (false, false),
        };
        let has_epoch = self.key.is_some_and(|key| key.epoch.is_some());
        let same_scan = has_epoch
            || has_digest
            || self.generated_at == WallTime::default()
            || self.generated_at == row.generated_at;
        same_machine && same_content && same_scan
    }
}

/// Facts that are kept: enough for any agent, too few to fill a disk with.
fn bounded(facts: &Facts) -> Facts {
    const MOST: usize = 64;
    const LONGEST: usize = 1024;
    facts
        .iter()
        .filter(|(name, value)| name.len() <= LONGEST && value.len() <= LONGEST)
        .take(MOST)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
