//! NATS on the wire: lines, some with a payload behind them.
//!
//! A decoder is a function of a buffer. Every length meets its bound before memory is taken.

/// Longest line, in bytes. INFO lists every server of a cluster.
pub const MAX_LINE: usize = 64 << 10;

/// Longest answer, headers included, in bytes.
pub const MAX_ANSWER: usize = 1 << 20;

/// Longest message of a stream, headers included, in bytes: no server takes a longer one.
pub const MAX_STORED: usize = 64 << 20;

/// What a buffer holds so far.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodedOperation<'a> {
    /// More bytes are needed.
    Incomplete,
    /// One operation, which takes this many bytes of the buffer.
    Operation(Operation<'a>, usize),
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// About itself, in JSON.
    Info(&'a [u8]),
    /// A message for one of our subscriptions.
    Message {
        /// Where it was sent to.
        subject: &'a str,
        /// Where it is answered, if it is to be.
        reply: Option<&'a str>,
        /// Its headers, as they travel; empty when there are none.
        headers: &'a [u8],
        /// From the first line of its headers; 503 means that nobody listens.
        status: Option<u16>,
        /// Its content.
        payload: &'a [u8],
    },
    /// It wants to know whether we are still here.
    Ping,
    /// It still is.
    Pong,
    /// All is well.
    Ok,
    /// Something is not; without the quotes.
    Error(&'a str),
}

/// Why bytes are not NATS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No end of a line where one must be.
    #[error("a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    /// More than what is expected.
    #[error("a message of {bytes} bytes, at most {max} are allowed")]
    MessageTooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Something else.
    #[error("not NATS: {0:?}")]
    Malformed(String),
}

/// Looks at what has arrived so far, where messages are answers.
pub fn decode(buffer: &[u8]) -> Result<DecodedOperation<'_>, ProtocolError> {
    decode_within(buffer, MAX_ANSWER)
}

/// Looks at what has arrived so far, where no message is longer than `max` bytes.
pub fn decode_within(buffer: &[u8], max: usize) -> Result<DecodedOperation<'_>, ProtocolError> {
    let Some(end) = buffer.iter().take(MAX_LINE).position(|b| *b == b'\n') else {
        return match buffer.len() < MAX_LINE {
            true => Ok(DecodedOperation::Incomplete),
            false => Err(ProtocolError::LineTooLong),
        };
    };
    let (line, rest) = buffer.split_at(end + 1);
    let line = std::str::from_utf8(line).map_err(|_| malformed(line))?;
    let line = line.trim_end_matches(['\r', '\n']);
    let (verb, operands) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let operands = operands.trim();
    let is = |word: &str| verb.eq_ignore_ascii_case(word);
    let operation = if is("MSG") || is("HMSG") {
        return message(operands, is("HMSG"), rest, end + 1, max)
            .unwrap_or_else(|| Err(malformed(line.as_bytes())));
    } else if is("INFO") {
        Operation::Info(operands.as_bytes())
    } else if is("PING") {
        Operation::Ping
    } else if is("PONG") {
        Operation::Pong
    } else if is("+OK") {
        Operation::Ok
    } else if is("-ERR") {
        Operation::Error(operands.trim_matches('\''))
    } else {
        return Err(malformed(line.as_bytes()));
    };
    Ok(DecodedOperation::Operation(operation, end + 1))
}

/// `<subject> <sid> [reply to] [bytes of headers] <bytes>`, and what follows the line; `None` when
/// it is not so.
fn message<'a>(
    operands: &'a str,
    has_headers: bool,
    rest: &'a [u8],
    line: usize,
    max: usize,
) -> Option<Result<DecodedOperation<'a>, ProtocolError>> {
    let words: Vec<&str> = operands.split_ascii_whitespace().take(6).collect();
    let numbers = if has_headers { 2 } else { 1 };
    let (names, sizes) = words.split_at_checked(words.len().checked_sub(numbers)?)?;
    let subject = *names.first().filter(|_| (2..=3).contains(&names.len()))?;
    let total: usize = sizes.last()?.parse().ok()?;
    let headers = match has_headers {
        true => sizes.first()?.parse().ok()?,
        false => 0,
    };
    if total > max {
        return Some(Err(ProtocolError::MessageTooLong { bytes: total, max }));
    }
    if rest.len() < total + 2 {
        return Some(Ok(DecodedOperation::Incomplete));
    }
    let (body, after) = rest.split_at_checked(total)?;
    let (headers, payload) = body.split_at_checked(headers)?;
    after.starts_with(b"\r\n").then_some(())?;
    let operation = Operation::Message {
        subject,
        // Behind the subject and the number of the subscription.
        reply: names.get(2).copied(),
        headers,
        status: status(headers),
        payload,
    };
    Some(Ok(DecodedOperation::Operation(operation, line + total + 2)))
}

/// The number in `NATS/1.0 503 text`.
fn status(headers: &[u8]) -> Option<u16> {
    let line = headers.split(|b| *b == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("NATS/1.0")?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The first line of headers behind `NATS/1.0`: a number and words.
pub fn status_text(headers: &[u8]) -> String {
    let line = headers.split(|byte| *byte == b'\r').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let text = line.strip_prefix("NATS/1.0").unwrap_or(&line).trim();
    text.chars().take(200).collect()
}

fn malformed(line: &[u8]) -> ProtocolError {
    let start = String::from_utf8_lossy(line.get(..line.len().min(80)).unwrap_or_default());
    ProtocolError::Malformed(start.trim().to_owned())
}

/// Headers as they travel; control characters in them are left out. Nothing for none.
pub fn encode_headers(headers: &[(&str, &str)]) -> String {
    let mut text = String::new();
    if headers.is_empty() {
        return text;
    }
    text.push_str("NATS/1.0\r\n");
    for (name, value) in headers {
        text.push_str(name);
        text.push_str(": ");
        text.extend(value.chars().filter(|c| !c.is_control()));
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}

/// The value of a header, where it is text.
pub fn header<'a>(headers: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = headers.split(|byte| *byte == b'\n').skip(1);
    lines.find_map(|line| {
        let (held, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        held.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// One message that nobody answers.
pub fn encode_one_way(subject: &str, payload: &str) -> String {
    format!("PUB {subject} {}\r\n{payload}\r\n", payload.len())
}

/// One message with encoded headers, to be answered at `reply`.
pub fn encode(subject: &str, reply: &str, headers: &str, payload: &[u8]) -> Vec<u8> {
    let total = headers.len() + payload.len();
    let line = match headers.len() {
        0 => format!("PUB {subject} {reply} {total}\r\n"),
        len => format!("HPUB {subject} {reply} {len} {total}\r\n"),
    };
    let mut bytes = Vec::with_capacity(line.len() + total + 2);
    bytes.extend_from_slice(line.as_bytes());
    bytes.extend_from_slice(headers.as_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn operations_are_found_in_any_case_and_one_after_the_other() {
        let mut rest: &[u8] =
            b"INFO {\"a\":1} \r\nping\r\n+OK\r\n-ERR 'Stale Connection'\r\nPong\n\
            MSG s.1 1 4\r\na\r\nb\r\nHMSG s.2 1 reply 16 18\r\nNATS/1.0 503\r\n\r\nhi\r\n";
        let message = |subject, reply, headers, status, payload| Operation::Message {
            subject,
            reply,
            headers,
            status,
            payload,
        };
        let headers = &b"NATS/1.0 503\r\n\r\n"[..];
        for expected in [
            Operation::Info(b"{\"a\":1}"),
            Operation::Ping,
            Operation::Ok,
            Operation::Error("Stale Connection"),
            Operation::Pong,
            message("s.1", None, b"", None, b"a\r\nb"),
            message("s.2", Some("reply"), headers, Some(503), b"hi"),
        ] {
            let Ok(DecodedOperation::Operation(operation, len)) = decode(rest) else {
                panic!("{:?}", decode(rest));
            };
            assert_eq!(operation, expected);
            rest = &rest[len..];
        }
        assert_eq!(decode(rest), Ok(DecodedOperation::Incomplete));
    }

    #[test]
    fn lengths_over_their_bounds_are_refused_before_what_they_announce_arrives() {
        assert_eq!(
            decode(b"MSG s 1 1048577\r\n"),
            Err(ProtocolError::MessageTooLong {
                bytes: 1_048_577,
                max: 1_048_576
            })
        );
        let stored = decode_within(b"MSG s 1 1048577\r\n", MAX_STORED);
        assert_eq!(stored, Ok(DecodedOperation::Incomplete));
        assert_eq!(decode(&[b'x'; MAX_LINE]), Err(ProtocolError::LineTooLong));
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        for bytes in [
            "HTTP/1.1 400 Bad Request\r\n",
            "MSG s 1\r\n",
            "MSG s 1 -1\r\n",
            "MSG 1 2\r\n\r\n\r\n",
            "MSG a b c d 2\r\nhi\r\n",
            "MSG s 1 2\r\nhi!!",
            "HMSG s 1 9 2\r\nhi\r\n",
            "MSG s 1 99999999999999999999\r\n",
        ] {
            let decoded = decode(bytes.as_bytes());
            assert!(
                matches!(decoded, Err(ProtocolError::Malformed(_))),
                "{bytes:?}: {decoded:?}"
            );
        }
    }

    #[test]
    fn a_header_cannot_begin_another_line() {
        let headers = encode_headers(&[("Id", "a\r\nEvil: b")]);
        assert_eq!(
            encode("s", "r", &headers, b"hi"),
            b"HPUB s r 26 28\r\nNATS/1.0\r\nId: aEvil: b\r\n\r\nhi\r\n"
        );
        assert_eq!(encode("s", "r", "", b"hi"), b"PUB s r 2\r\nhi\r\n");
        assert_eq!(encode_one_way("s", "hi"), "PUB s 2\r\nhi\r\n");
    }

    #[test]
    fn a_header_is_found_in_any_case_and_behind_the_first_line() {
        let headers = encode_headers(&[("A", "1"), ("Content-Encoding", "gzip")]);
        let found = |name| header(headers.as_bytes(), name);
        assert_eq!(found("content-encoding"), Some("gzip"));
        assert_eq!((found("B"), found("NATS/1.0")), (None, None));
        assert_eq!(header(b"", "A"), None);
    }

    proptest! {
        /// A server may say anything, cut anywhere.
        #[test]
        fn no_bytes_panic_and_no_operation_is_longer_than_the_buffer(
            bytes in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(&b"MSG H\r\n 0123456789-+.'INFO"[..]),
                    any::<u8>()
                ],
                0..200,
            )
        ) {
            if let Ok(DecodedOperation::Operation(_, len)) = decode(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }

        #[test]
        fn a_message_is_whole_only_with_its_last_byte(payload: Vec<u8>, cut in 0.0..1.0) {
            let mut bytes = format!("MSG s 1 {}\r\n", payload.len()).into_bytes();
            bytes.extend(&payload);
            bytes.extend(b"\r\n");
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let short = (bytes.len() as f64 * cut) as usize;
            prop_assert_eq!(decode(&bytes[..short]), Ok(DecodedOperation::Incomplete));
            let whole = Operation::Message { subject: "s", reply: None, headers: b"", status: None, payload: &payload };
            prop_assert_eq!(decode(&bytes), Ok(DecodedOperation::Operation(whole, bytes.len())));
        }
    }
}
