//! Watches, as the API server answers them.

use super::*;

pub(super) async fn watch(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &Request,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let (plural, namespace, _) = request.object();
    let query = |name: &str| request.query.get(name).map(String::as_str);
    let selector = query("labelSelector");
    let mut at: u64 = query("resourceVersion").unwrap_or("0").parse().unwrap();
    let wants_bookmarks = query("allowWatchBookmarks") == Some("true");
    let time = Duration::from_secs(query("timeoutSeconds").map_or(1800, |s| s.parse().unwrap()));
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    stream.flush().await?;
    let (fault, too_old, bookmark_every, term) = {
        let mut state = state.lock().unwrap();
        let fault = state.take(|fault| {
            matches!(
                fault,
                Fault::ExpiredWatch | Fault::CutWatch | Fault::SilentWatch
            )
        });
        (
            fault,
            at < state.compacted,
            state.bookmark_every,
            state.term,
        )
    };
    if too_old || matches!(fault, Some(Fault::ExpiredWatch)) {
        let now = state.lock().unwrap().version;
        let message = format!("too old resource version: {at} ({now})");
        let object = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "Expired", "code": 410});
        chunk(
            stream,
            &json!({"type": "ERROR", "object": object}).to_string(),
        )
        .await?;
        return end(stream).await;
    }
    if matches!(fault, Some(Fault::SilentWatch)) {
        let mut byte = [0];
        let _ = stream.read(&mut byte).await;
        return Ok(());
    }
    let began = tokio::time::Instant::now();
    let mut marked = began;
    while began.elapsed() < time {
        let (events, version, is_over) = {
            let state = state.lock().unwrap();
            let begin = state.log.partition_point(|(version, ..)| *version <= at);
            let new = { state.log[begin..].iter() }.filter(|(_, of, ..)| *of == plural);
            let events: Vec<Value> = new
                .filter_map(|(_, _, event, before)| {
                    let object = &event["object"];
                    if !is_in(object, namespace.as_deref()) {
                        return None;
                    }
                    // A label that comes or leaves is ADDED or DELETED.
                    let kind = match (
                        matches(before, selector) && !before.is_null(),
                        matches(object, selector),
                    ) {
                        _ if selector.is_none() => event["type"].as_str().unwrap(),
                        (_, true) if event["type"] == "DELETED" => "DELETED",
                        (true, true) => "MODIFIED",
                        (false, true) => "ADDED",
                        (true, false) => "DELETED",
                        (false, false) => return None,
                    };
                    Some(json!({"type": kind, "object": object}))
                })
                .collect();
            (
                events,
                state.version,
                state.absent.contains(&plural) || state.term != term,
            )
        };
        at = version;
        for event in events {
            let line = event.to_string();
            if matches!(fault, Some(Fault::CutWatch)) {
                chunk_raw(stream, &line[..line.len() / 2]).await?;
                return end(stream).await;
            }
            chunk(stream, &line).await?;
        }
        if is_over {
            return end(stream).await;
        }
        if wants_bookmarks && bookmark_every.is_some_and(|every| marked.elapsed() >= every) {
            bookmark(stream, &plural, at).await?;
            marked = tokio::time::Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if wants_bookmarks {
        bookmark(stream, &plural, at).await?;
    }
    end(stream).await
}

pub(super) async fn bookmark(
    stream: &mut (impl AsyncWrite + Unpin),
    plural: &str,
    at: u64,
) -> std::io::Result<()> {
    let object = json!({"kind": kind_of(plural), "apiVersion": "kubevirt.io/v1", "metadata": {"resourceVersion": at.to_string()}});
    chunk(
        stream,
        &json!({"type": "BOOKMARK", "object": object}).to_string(),
    )
    .await
}

pub(super) async fn chunk(
    stream: &mut (impl AsyncWrite + Unpin),
    line: &str,
) -> std::io::Result<()> {
    chunk_raw(stream, &format!("{line}\n")).await
}

pub(super) async fn chunk_raw(
    stream: &mut (impl AsyncWrite + Unpin),
    text: &str,
) -> std::io::Result<()> {
    stream
        .write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
        .await?;
    stream.flush().await
}

pub(super) async fn end(stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    stream.write_all(b"0\r\n\r\n").await?;
    stream.flush().await
}
