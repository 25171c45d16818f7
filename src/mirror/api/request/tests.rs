//! Requests that are questions, and those that are none; and the description of the API.

use super::*;
use crate::web::routes::{self, WebCall};
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000_000;

fn asked(path: &str, query: &str) -> Result<WebCall<MirrorCall>, BadRequest> {
    routes::read(ROUTES, path, query, WallTime::from_unix_ms(NOW))
}

#[test]
fn questions_are_read_with_their_parameters() {
    let id = "6c1a0a3e-0000-4000-8000-000000000001";
    for (path, query, wanted) in [
        (
            "/v1/racks",
            String::new(),
            MirrorCall::Racks {
                after: None,
                limit: 1000,
            },
        ),
        (
            "/v1/racks",
            format!("cursor={id}&limit=5000"),
            MirrorCall::Racks {
                after: Some(id.parse().unwrap()),
                limit: 5000,
            },
        ),
        (
            "/v1/racks/r%2F1",
            String::new(),
            MirrorCall::Rack { name: "r/1".into() },
        ),
        (
            "/v1/drift",
            format!(
                "kind=Compute&rack=r1&since=1h&code=mismatch&cursor=2026-01-02T03:04:05Z~{id}&limit=7"
            ),
            MirrorCall::Drift {
                filter: DriftFilter {
                    kind: Some("Compute".into()),
                    rack: Some("r1".into()),
                    code: Some("mismatch".into()),
                    since: Some(WallTime::from_unix_ms(NOW - 3_600_000)),
                    cursor: None,
                    limit: Some(7),
                },
                after: Some(format!("2026-01-02T03:04:05Z~{id}").parse().unwrap()),
            },
        ),
        (
            "/v1/audit",
            "since=2026-11-21T10:00:00Z&kind=rack&rack=a%20b&code=insert&row=r1&cursor=9".into(),
            MirrorCall::Audit {
                filter: AuditFilter {
                    row: Some("r1".into()),
                    kind: Some("rack".into()),
                    rack: Some("a b".into()),
                    code: Some("insert".into()),
                    since: Some(WallTime::from_unix_ms(1_795_255_200_000)),
                    cursor: Some(9),
                    limit: Some(1000),
                    ..AuditFilter::default()
                },
            },
        ),
        (
            "/v1/withheld",
            "limit=1".into(),
            MirrorCall::Withheld { limit: 1 },
        ),
        ("/v1/status", String::new(), MirrorCall::Status),
    ] {
        assert_eq!(
            asked(path, &query),
            Ok(WebCall::Ask(wanted)),
            "{path}?{query}"
        );
    }
}

#[test]
fn nonsense_is_refused_with_what_is_allowed() {
    let long = format!("rack={}", "x".repeat(513));
    for (path, query, said) in [
        ("/v1/racks", "kind=rack", "allowed: cursor, limit"),
        ("/v1/racks", "limit=0", "from 1 to 5000"),
        ("/v1/racks", "limit=5001", "from 1 to 5000"),
        ("/v1/racks", "cursor=r1", "cursor: "),
        ("/v1/racks/%ff", "", "no percent-encoded text"),
        ("/v1/drift", "kind=rack", "not one of Unknown, Compute"),
        ("/v1/drift", "code=differs", "no type of drift"),
        ("/v1/drift", "since=soon", "neither a time nor a duration"),
        ("/v1/drift", "cursor=1", "no `next` of a page"),
        ("/v1/drift", &long, "longer than 512 bytes"),
        ("/v1/audit", "cursor=-1", "not a whole number"),
        ("/v1/audit", "kind=racks", "not one of rack, NVLDomain"),
        ("/v1/audit", "row=a&row=b", "row is given twice"),
        ("/v1/audit", &long, "longer than 512 bytes"),
        ("/v1/withheld", "cursor=1", "allowed: limit"),
        ("/v1/status", "x=1", "allowed: none"),
    ] {
        let Err(BadRequest::Usage(error)) = asked(path, query) else {
            unreachable!("{path}?{query} is answered")
        };
        assert!(error.contains(said), "{path}?{query}: {error}");
    }
    for path in [
        "/v1",
        "/v1/racks/",
        "/v1/racks/a/b",
        "/v1/pulls",
        "/V1/racks",
    ] {
        assert_eq!(asked(path, ""), Err(BadRequest::NoRoute), "{path}");
    }
}

#[test]
fn the_description_lists_exactly_the_routes_and_their_parameters() {
    routes::assert_described(ROUTES, include_str!("../openapi.json"));
}

proptest! {
    /// The loss: a request that ends the thread, or a page without a bound.
    #[test]
    fn any_text_is_a_bounded_question_or_refused(
        path in "/v1/(racks|drift|audit|withheld|status)(/.{0,12})?",
        query in "((kind|rack|since|code|row|cursor|limit)?=?.{0,10}&?){0,5}",
    ) {
        match asked(&path, &query) {
            Ok(WebCall::Ask(MirrorCall::Racks { limit, .. } | MirrorCall::Withheld { limit })) => {
                prop_assert!((1..=MOST_ROWS).contains(&limit));
            }
            Ok(WebCall::Ask(MirrorCall::Drift { filter: DriftFilter { limit, .. }, .. }
                | MirrorCall::Audit { filter: AuditFilter { limit, .. } })) => {
                prop_assert!(limit.is_some_and(|limit| (1..=MOST_ROWS).contains(&limit)));
            }
            Ok(_) | Err(BadRequest::NoRoute) => {}
            Err(BadRequest::Usage(what)) => prop_assert!(!what.is_empty()),
        }
    }
}
