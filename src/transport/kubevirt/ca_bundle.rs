//! One call of KubeVirt's CABundle service: gRPC over HTTP/2 without TLS, on a connection of its own.
//!
//! The service is `virt-handler`, at VSOCK port 1 of the host. Of gRPC a call with one message each way is all
//! there is, so it is spoken here, on top of h2.

use crate::transport::{DialAddress, Stream, dial};
use crate::visible::visible;
use crate::wire::ca_bundle::{self, MAX_ANSWER};
use http::{HeaderMap, Method, Request, Version};

/// The only answer to the call that is a success (`grpc-status`).
const OK: &str = "0";

/// Fetches the certificates in PEM. It may take for ever: the caller sets the deadline.
///
/// # Errors
/// Says at which step the call failed.
pub(super) async fn fetch(source: &DialAddress) -> Result<Vec<u8>, String> {
    let stream = dial(source)
        .await
        .map_err(|error| format!("no connection: {error}"))?;
    call(stream).await
}

async fn call(stream: Stream) -> Result<Vec<u8>, String> {
    let (client, connection) = h2::client::Builder::new()
        .enable_push(false)
        .handshake::<_, &'static [u8]>(stream)
        .await
        .map_err(|error| format!("no HTTP/2 with it: {error}"))?;
    let mut connection = std::pin::pin!(connection);
    let answer = answer(client);
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            // The answer may have arrived with the last bytes.
            match (ended, futures_now(answer.as_mut())) {
                (_, Some(answer)) => answer,
                (Err(error), None) => Err(format!("the connection broke: {error}")),
                (Ok(()), None) => Err("the connection ended before the answer".into()),
            }
        }
    }
}

/// What a future gives without waiting.
fn futures_now<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

async fn answer(client: h2::client::SendRequest<&'static [u8]>) -> Result<Vec<u8>, String> {
    let failed = |error: h2::Error| format!("the call failed: {error}");
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://vsock{}", ca_bundle::PATH))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header(
            "user-agent",
            concat!("afferent/", env!("CARGO_PKG_VERSION")),
        )
        .body(())
        .map_err(|error| error.to_string())?;
    let mut client = client.ready().await.map_err(failed)?;
    let (response, mut body) = client.send_request(request, false).map_err(failed)?;
    body.send_data(ca_bundle::REQUEST, true).map_err(failed)?;
    let (head, mut body) = response.await.map_err(failed)?.into_parts();
    if !head.status.is_success() {
        return Err(format!(
            "the service answered with HTTP status {}",
            head.status
        ));
    }
    // An error may come without a body: then the status stands in the headers.
    check_status(&head.headers)?;
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(failed)?;
        if bytes.len() + part.len() > MAX_ANSWER {
            return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
        }
        bytes.extend_from_slice(&part);
        let _ = body.flow_control().release_capacity(part.len());
    }
    let trailers = body.trailers().await.map_err(failed)?;
    match trailers {
        Some(trailers) if trailers.contains_key(STATUS) => check_status(&trailers)?,
        _ if head.headers.contains_key(STATUS) => {}
        _ => return Err("the answer has no grpc-status".into()),
    }
    let certificates = ca_bundle::decode(&bytes).map_err(|error| error.to_string())?;
    Ok(certificates.to_vec())
}

const STATUS: &str = "grpc-status";

fn check_status(headers: &HeaderMap) -> Result<(), String> {
    let text = |name| {
        let value = headers.get(name).map(http::HeaderValue::as_bytes);
        value.map(String::from_utf8_lossy)
    };
    match text(STATUS) {
        Some(status) if status != OK => Err(format!(
            "the service answered with grpc-status {}: {}",
            visible(&status),
            visible(&text("grpc-message").unwrap_or_default())
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: the service that is asked for authorities writes lines into the guest's journal.
    #[test]
    fn no_text_of_the_service_reaches_the_log_as_it_is() {
        let mut headers = HeaderMap::new();
        let text = http::HeaderValue::from_bytes("no\u{202e}".as_bytes()).unwrap();
        headers.insert(STATUS, http::HeaderValue::from_static("14"));
        headers.insert("grpc-message", text);
        let error = check_status(&headers).unwrap_err();
        assert_eq!(error, "the service answered with grpc-status 14: no\\u202e");
    }
}
