//! One push of the mapping to a guest, on a connection of its own: a wait that is held there goes on.

use super::SensorMapping;
use super::pushes::PushOutcome;
use crate::sense::pull::dial::Dial;
use crate::sense::pull::failure::Failure;
use crate::transport::{self, DialAddress, ReadError, Stream};
use crate::visible::Foreign;
use crate::wire::message::ErrorCode;
use crate::wire::request;
use crate::wire::response::{Payload, Response};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Longest push, dialing included.
const WHOLE: Duration = Duration::from_secs(30);

/// Longest answer, in bytes: one says little.
const LONGEST_ANSWER: u32 = 64 << 10;

/// The mapping is written in parts of this many bytes, between which reports go on.
const STEP: usize = 64 << 10;

/// Gives the mapping to the guest at this address.
pub async fn push(dial: &dyn Dial, address: &DialAddress, mapping: &SensorMapping) -> PushOutcome {
    let _seat = dial.admit(address).await;
    let exchange = async {
        let dialed = timeout(dial.dial_deadline(address), dial.dial(address)).await;
        let mut stream = match dialed {
            Ok(dialed) => dialed.map_err(|failure| failure.to_string())?,
            Err(_) => return Err(Failure::DialTimeout.to_string()),
        };
        // A peer that refuses answers before it has read everything, and may close.
        let _ = write(&mut stream, mapping).await;
        let len = transport::read_len(&mut stream, LONGEST_ANSWER).await;
        let len = len.map_err(|error| no_answer(&error))?;
        let body = transport::read_body(&mut stream, len).await;
        body.map_err(|error| no_answer(&error))
    };
    match timeout(WHOLE, Box::pin(exchange)).await {
        Ok(Ok(body)) => understand(&body),
        Ok(Err(why)) => PushOutcome::Failed(why),
        Err(_) => PushOutcome::Failed(format!("no answer within {} s", WHOLE.as_secs())),
    }
}

async fn write(stream: &mut Stream, mapping: &SensorMapping) -> std::io::Result<()> {
    let head = request::push_head(mapping.bytes.len());
    stream.write_all(&head).await?;
    for part in mapping.bytes.chunks(STEP) {
        stream.write_all(part).await?;
        tokio::task::yield_now().await;
    }
    stream.flush().await
}

fn no_answer(error: &ReadError) -> String {
    Failure::from_read(error).to_string()
}

/// What an agent answered.
fn understand(body: &[u8]) -> PushOutcome {
    let Ok(response) = Response::decode(body) else {
        return PushOutcome::Failed(Failure::Malformed.to_string());
    };
    match response.payload {
        Some(Payload::Synced { updated }) => PushOutcome::Taken { is_new: updated },
        Some(Payload::Error(error)) => match ErrorCode::try_from(error.code) {
            Ok(ErrorCode::MappingNotSensorManaged) => PushOutcome::NotManaged,
            code => PushOutcome::Failed(format!(
                "{}: {}",
                code.unwrap_or(ErrorCode::Unspecified).name(),
                Foreign::from(error.message.as_str())
            )),
        },
        Some(Payload::Report(_)) | None => PushOutcome::Failed(Failure::Malformed.to_string()),
    }
}
