//! Since when a sink is what it is. What the queue remembers as accepted was accepted by whoever the sink was
//! then: by another server, perhaps, or into another project.

use crate::clock::{self, WallTime};
use std::fs;
use std::io;
use std::path::Path;

/// Since when the sink whose memory this file is has been `what`: from now on, where it was something else
/// or nothing remembers. It is remembered where that is possible.
pub(super) fn since(memory: Option<&Path>, what: &str) -> WallTime {
    let text = memory.and_then(|path| fs::read_to_string(path).ok());
    if let Some((since, before)) = text.unwrap_or_default().split_once('\n')
        && before == what
        && let Ok(since) = since.parse()
    {
        return WallTime::from_unix_ms(since);
    }
    since_now(memory, what)
}

/// The same from now on, whatever is remembered.
pub(super) fn since_now(memory: Option<&Path>, what: &str) -> WallTime {
    let now = clock::wall_now();
    let Some(path) = memory else {
        return now;
    };
    // A half is no memory: what stands behind the time is compared whole.
    if let Err(error) = fs::write(path, format!("{}\n{what}", now.unix_ms())) {
        let path = path.display();
        tracing::warn!(%path, %error, "not remembered: after the next start everything is delivered once more");
    }
    now
}

/// Nothing is remembered any more: what is accepted from now on is not what the memory is of.
pub(super) fn forget(memory: Option<&Path>) {
    let Some(path) = memory else {
        return;
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let path = path.display();
            tracing::warn!(%path, %error, "cannot be removed: remove it before this sink is told of events again");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_the_same_until_it_becomes_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sink");
        let first = since(Some(&path), "https://a\n{vm}");
        fs::write(&path, format!("{}\nhttps://a\n{{vm}}", first.unix_ms() - 5)).unwrap();
        let earlier = since(Some(&path), "https://a\n{vm}");
        assert_eq!(earlier.unix_ms(), first.unix_ms() - 5);
        let other = since(Some(&path), "https://b\n{vm}");
        assert!(other >= first);
        // Back to the first: what the second accepted, the first does not have.
        assert!(since(Some(&path), "https://a\n{vm}") >= other);
        fs::write(&path, "12\nhttps://a\n{v").unwrap();
        assert!(since(Some(&path), "https://a\n{vm}") >= other);
        assert!(since(None, "x") >= other);
        let before = format!("{}\nx", other.unix_ms() - 5);
        fs::write(&path, &before).unwrap();
        assert_eq!(since(Some(&path), "x").unix_ms(), other.unix_ms() - 5);
        assert!(since_now(Some(&path), "x") >= other);
        assert!(since(Some(&path), "x") >= other);
        forget(Some(&path));
        assert!(!path.exists());
        forget(Some(&path));
        assert!(since(Some(&dir.path().join("none/sink")), "x") >= other);
    }
}
