//! What a service is asked: a line of words on its control socket, the head of an HTTP request on its port for
//! metrics. Both are parsed from bytes alone.

/// Most header lines of a request.
const HEADERS: usize = 64;

/// The words of a question on the control socket, which ends with its first line.
///
/// # Errors
/// It is not UTF-8.
pub fn words(question: &[u8]) -> Result<Vec<&str>, std::str::Utf8Error> {
    let line = question.split(|byte| *byte == b'\n').next();
    let line = std::str::from_utf8(line.unwrap_or_default())?;
    Ok(line.split_whitespace().collect())
}

/// Status of a head that is longer than is read.
pub const TOO_LONG: &str = "431 Request Header Fields Too Large";
/// Status of a method that is not known.
pub const NOT_ALLOWED: &str = "405 Method Not Allowed";

/// A request over HTTP, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Only the head of the answer is asked for.
    pub is_head: bool,
    /// The page is asked for.
    pub is_get: bool,
    /// Without its query, which nothing here depends on.
    pub path: String,
}

impl HttpRequest {
    /// The request in `bytes`; `None` while its head is not complete, or the status of what is none.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(TOO_LONG),
            Err(_) => return Err("400 Bad Request"),
        }
        let target = request.path.unwrap_or_default();
        // The whole address, as a proxy is asked for it.
        let target = match target.split_once("://") {
            Some(("http" | "https", rest)) => rest.find('/').and_then(|at| rest.get(at..)),
            _ => Some(target),
        };
        let target = target.unwrap_or("/");
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        Ok(Some(Self {
            is_head: request.method == Some("HEAD"),
            is_get: request.method == Some("GET"),
            path: path.to_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_the_words_of_its_first_line() {
        assert_eq!(words(b"status all\r\nmore").unwrap(), ["status", "all"]);
        assert_eq!(words(b"\n").unwrap(), [""; 0]);
        assert!(words(b"status \xff\n").is_err());
    }

    #[test]
    fn a_request_is_read_once_its_head_is_complete() {
        let text = b"GET http://h:1/metrics?name=x HTTP/1.1\r\nHost: h\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(HttpRequest::parse(&text[..end]), Ok(None), "{end}");
        }
        let request = HttpRequest::parse(text).unwrap().unwrap();
        assert!(request.is_get && !request.is_head);
        assert_eq!(request.path, "/metrics");
    }
}
