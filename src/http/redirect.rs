//! Where a redirect leads.

use super::{HttpError, HttpResponse};
use ureq::http::Uri;

/// The address that follows on `url`, if `response` is a redirect within the same origin.
///
/// # Errors
/// It leads to another origin, or nowhere.
pub(super) fn target(url: &str, response: &HttpResponse) -> Result<Option<String>, HttpError> {
    if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let wrong = |what: String| {
        let status = response.status;
        HttpError::Configuration(format!("{url} answers with a redirect ({status}) {what}"))
    };
    let Some(location) = response.header("location").filter(|to| !to.is_empty()) else {
        return Err(wrong("that does not say where to".into()));
    };
    let to = resolved(url, location);
    match (
        url.parse().ok().and_then(|uri| origin(&uri)),
        to.parse().ok().and_then(|uri| origin(&uri)),
    ) {
        (Some(from), Some(there)) if from == there => Ok(Some(to)),
        (_, None) => Err(wrong(format!("to {location:?}, which is no address"))),
        _ => Err(wrong(format!(
            "to another origin, {to}, which is not followed"
        ))),
    }
}

/// Scheme, host and port.
fn origin(uri: &Uri) -> Option<(String, String, u16)> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "https" => 443,
        _ => 80,
    };
    let host = uri.host()?.to_ascii_lowercase();
    Some((scheme, host, uri.port_u16().unwrap_or(usual)))
}

/// `location` seen from `url`, as RFC 3986 has it.
fn resolved(url: &str, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let scheme_end = url.find("://").map_or(0, |at| at + 3);
    let path_at = url
        .get(scheme_end..)
        .and_then(|rest| rest.find(['/', '?', '#']));
    let (origin, path) = url.split_at(path_at.map_or(url.len(), |at| scheme_end + at));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let before_colon = location.split(['/', '?']).next().unwrap_or_default();
    if before_colon.contains(':') {
        return location.to_owned();
    }
    if let Some(host) = location.strip_prefix("//") {
        let scheme = url.split("//").next().unwrap_or_default();
        return format!("{scheme}//{host}");
    }
    if location.starts_with('?') {
        return format!(
            "{origin}{}{location}",
            if path.is_empty() { "/" } else { path }
        );
    }
    let (relative, query) = match location.split_once('?') {
        Some((relative, query)) => (relative, format!("?{query}")),
        None => (location, String::new()),
    };
    let whole = match relative.strip_prefix('/') {
        Some(absolute) => absolute.to_owned(),
        None => {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{directory}/{relative}")
                .trim_start_matches('/')
                .to_owned()
        }
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if whole.ends_with("/.") || whole.ends_with("/..") {
        parts.push("");
    }
    format!("{origin}/{}{query}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_resolved_as_a_browser_does_it() {
        let base = "http://h:1/a/b?q";
        for (location, expected) in [
            ("/x", "http://h:1/x"),
            ("x", "http://h:1/a/x"),
            ("./x?y=/", "http://h:1/a/x?y=/"),
            ("../x", "http://h:1/x"),
            ("../../x#f", "http://h:1/x"),
            ("c/", "http://h:1/a/c/"),
            ("..", "http://h:1/"),
            ("?p", "http://h:1/a/b?p"),
            ("//o/x", "http://o/x"),
            ("https://o/x", "https://o/x"),
            ("mailto:x", "mailto:x"),
        ] {
            assert_eq!(resolved(base, location), expected, "{location}");
        }
        assert_eq!(resolved("http://h", "x"), "http://h/x");
        assert_eq!(resolved("http://h", "?x"), "http://h/?x");
    }
}
