//! Requests, as they come.

use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncReadExt};

pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) token: Option<String>,
    pub(super) key: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) body: Vec<u8>,
}

pub(super) async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
) -> std::io::Result<(String, Request)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default().to_owned();
    let field = |name: &str| {
        let mut fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
        fields
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.to_owned())
    };
    let length = field("content-length").map_or(0, |v| v.parse().unwrap());
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(n, v)| (n.to_owned(), decoded(v))).collect();
    let token = field("authorization").and_then(|v| v.strip_prefix("Bearer ").map(str::to_owned));
    let request = Request {
        method,
        path: path.to_owned(),
        query,
        token,
        key: field("sec-websocket-key"),
        protocol: field("sec-websocket-protocol"),
        body,
    };
    Ok((target, request))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let hex = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &rest[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl Request {
    /// Plural and namespace of a path below `/apis/kubevirt.io/v1`, and the name of an object.
    pub(super) fn object(&self) -> (String, Option<String>, Option<String>) {
        let parts: Vec<&str> = self.path.split('/').skip(4).collect();
        let own = |text: &&str| (*text).to_owned();
        match parts.as_slice() {
            ["namespaces", namespace, plural, rest @ ..] => (
                (*plural).into(),
                Some((*namespace).into()),
                rest.first().map(own),
            ),
            [plural, ..] => ((*plural).into(), None, None),
            [] => (String::new(), None, None),
        }
    }
}
