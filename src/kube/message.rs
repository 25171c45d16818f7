//! HTTP/1.1 messages: the head of a request, the head of a response, and bodies.

use super::KubeError;
use std::time::Duration;

/// Longest head of a response, in bytes.
const LONGEST_HEAD: usize = 64 << 10;

/// Header fields of a response that are looked at, at most.
const FIELDS: usize = 100;

/// Longest line of a chunk's size or of a trailer.
const LONGEST_LINE: usize = 4 << 10;

/// Longest time that a server may ask to wait.
const LONGEST_RETRY: u64 = 600;

/// Whether `text` may stand in a header field: no control character, so that it begins no other field.
pub(super) fn is_field_value(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_control())
}

/// The head of a GET request; `more` is complete fields.
pub(super) fn request(host: &str, target: &str, token: Option<&str>, more: &str) -> Vec<u8> {
    let authorization = token.map_or(String::new(), |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    // An agent that looks like a browser or curl gets objects over many lines.
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: afferent/{}\r\n{authorization}{more}\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes()
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// So many bytes are left.
    Known(u64),
    /// In chunks.
    Chunked,
    /// It ends with the connection.
    UntilClosed,
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) code: u16,
    pub(super) body: BodyLength,
    pub(super) retry_after: Option<Duration>,
    /// `Sec-WebSocket-Accept`.
    pub(super) accept: Option<String>,
}

/// Reads a head from the beginning of `bytes`; gives its length, too. `None`: more must come.
///
/// # Errors
/// The bytes are no head of HTTP/1.1, or it is over its bound.
pub(super) fn read_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, KubeError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes).map_err(KubeError::broken)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial if bytes.len() > LONGEST_HEAD => {
            return Err(KubeError::broken("its head is over 64 KiB"));
        }
        httparse::Status::Partial => return Ok(None),
    };
    let code = response.code.unwrap_or_default();
    let field = |name: &str| {
        let mut fields = response.headers.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let is_chunked = field("transfer-encoding")
        .is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked"));
    let body = match field("content-length") {
        _ if is_chunked => BodyLength::Chunked,
        Some(text) => BodyLength::Known(
            text.parse()
                .map_err(|_| KubeError::broken("its Content-Length is no number"))?,
        ),
        None if code == 204 || code == 304 || code < 200 => BodyLength::Known(0),
        None => BodyLength::UntilClosed,
    };
    let seconds = |text: &str| text.parse::<u64>().ok();
    let head = Head {
        code,
        body,
        retry_after: field("retry-after")
            .and_then(seconds)
            .map(|s| Duration::from_secs(s.min(LONGEST_RETRY))),
        accept: field("sec-websocket-accept").map(str::to_owned),
    };
    Ok(Some((head, len)))
}

/// A line, and the bytes behind it.
type LineAndRest<'a> = (Vec<u8>, &'a [u8]);

/// Decodes a chunked body as it arrives.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: ChunkState,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    /// In the line with the size of a chunk.
    #[default]
    Size,
    /// So many bytes of it are left.
    Data(u64),
    /// In the empty line after it.
    AfterData,
    /// In the trailers.
    Trailer,
    Done,
}

impl Chunked {
    /// Whether the last chunk and the trailers were seen.
    pub(super) fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Appends what `input` brings of the body to `out`.
    ///
    /// # Errors
    /// It is not chunked as HTTP/1.1 says.
    pub(super) fn decode(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), KubeError> {
        while !input.is_empty() && !self.is_done() {
            if let ChunkState::Data(left) = self.state {
                let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(len);
                out.extend_from_slice(data);
                input = rest;
                let left = left - len as u64;
                self.state = match left {
                    0 => ChunkState::AfterData,
                    left => ChunkState::Data(left),
                };
                continue;
            }
            let Some((line, rest)) = self.take_line(input)? else {
                return Ok(());
            };
            input = rest;
            self.state = match self.state {
                ChunkState::Size => match chunk_size(&line)? {
                    0 => ChunkState::Trailer,
                    size => ChunkState::Data(size),
                },
                ChunkState::AfterData if line.is_empty() => ChunkState::Size,
                ChunkState::Trailer if line.is_empty() => ChunkState::Done,
                ChunkState::Trailer => ChunkState::Trailer,
                _ => return Err(KubeError::broken("a chunk is longer than it says")),
            };
        }
        Ok(())
    }

    /// A whole line without its end, once there is one.
    fn take_line<'a>(&mut self, input: &'a [u8]) -> Result<Option<LineAndRest<'a>>, KubeError> {
        let end = input.iter().position(|b| *b == b'\n');
        let (part, rest) = match end {
            Some(end) => input.split_at(end + 1),
            None => (input, &[][..]),
        };
        if self.line.len() + part.len() > LONGEST_LINE {
            return Err(KubeError::broken("the line of a chunk is over 4 KiB"));
        }
        self.line.extend_from_slice(part);
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.line);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some((line, rest)))
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, KubeError> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default();
    std::str::from_utf8(digits)
        .ok()
        .map(str::trim)
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| KubeError::broken("the size of a chunk is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Head {
        read_head(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_head_says_how_the_body_ends_and_when_to_come_again() {
        let known = head("HTTP/1.1 429 Too Many\r\nContent-Length: 5\r\nretry-after: 1\r\n\r\n");
        assert_eq!((known.code, known.body), (429, BodyLength::Known(5)));
        assert_eq!(known.retry_after, Some(Duration::from_secs(1)));
        let chunked = head("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n");
        assert_eq!(chunked.body, BodyLength::Chunked);
        let closed = head("HTTP/1.1 200 OK\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n");
        assert_eq!(
            (closed.body, closed.retry_after),
            (BodyLength::UntilClosed, None)
        );
        let upgraded = head("HTTP/1.1 101 X\r\nSec-WebSocket-Accept: abc\r\n\r\n");
        assert_eq!(upgraded.body, BodyLength::Known(0));
        assert_eq!(upgraded.accept.as_deref(), Some("abc"));
        let long = head("HTTP/1.1 503 X\r\nRetry-After: 99999999\r\n\r\n");
        assert_eq!(long.retry_after, Some(Duration::from_secs(600)));
    }

    #[test]
    fn what_is_no_head_is_an_error_and_half_of_one_waits_for_more() {
        assert_eq!(read_head(b"HTTP/1.1 200 OK\r\nA: b\r\n").unwrap(), None);
        assert!(read_head(b"\x15\x03\x03\0\x02\x02\x28").is_err());
        assert!(read_head(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(LONGEST_HEAD));
        assert!(read_head(endless.as_bytes()).is_err());
    }

    #[test]
    fn wrong_chunks_are_errors() {
        for text in ["x\r\n", "-1\r\n", "3\r\nabcd\r\n", "fffffffffffffffff\r\n"] {
            let decoded = Chunked::default().decode(text.as_bytes(), &mut Vec::new());
            assert!(decoded.is_err(), "{text:?}");
        }
        let endless = vec![b'1'; LONGEST_LINE + 1];
        assert!(
            Chunked::default()
                .decode(&endless, &mut Vec::new())
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn a_chunked_body_arrives_however_it_is_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6),
            cut in 1usize..20,
        ) {
            let mut sent = Vec::new();
            for chunk in &chunks {
                sent.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
            let (mut decoder, mut out) = (Chunked::default(), Vec::new());
            for part in sent.chunks(cut) {
                prop_assert!(!decoder.is_done());
                decoder.decode(part, &mut out).unwrap();
            }
            prop_assert!(decoder.is_done());
            prop_assert_eq!(out, chunks.concat());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_head(&bytes);
            let _ = Chunked::default().decode(&bytes, &mut Vec::new());
        }
    }
}
