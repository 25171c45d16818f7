//! Requests that are questions, and those that are none; and the description of the API.

use super::*;
use crate::percent;
use crate::web::routes::{self, WebCall};
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000_000;

fn asked(path: &str, query: &str) -> Result<WebCall<ApiCall>, BadRequest> {
    routes::read(ROUTES, path, query, WallTime::from_unix_ms(NOW))
}

fn usage(path: &str, query: &str) -> String {
    match asked(path, query) {
        Err(BadRequest::Usage(what)) => what,
        other => unreachable!("{path}?{query}: {other:?}"),
    }
}

#[test]
fn questions_are_read_with_their_parameters() {
    let page = |limit: usize| AnswerPage {
        after: None,
        limit: Some(limit),
    };
    let find = |package: &str, not: bool| FleetQuery::Find {
        package: package.into(),
        arch: None,
        os: Some("rhel-9".into()),
        not,
        running: false,
    };
    for (path, query, wanted, part) in [
        (
            "/v1/guests",
            "",
            FleetQuery::Guests { os: None },
            page(1000),
        ),
        (
            "/v1/guests",
            "os=rhel-9&cursor=web%2D1&limit=10000&",
            FleetQuery::Guests {
                os: Some("rhel-9".into()),
            },
            AnswerPage {
                after: Some("web-1".into()),
                limit: Some(10_000),
            },
        ),
        (
            "/v1/guests/ns%2Da:web+1@x",
            "at=2026-11-21T10:00:00Z",
            FleetQuery::Show {
                vm: "ns-a:web+1@x".into(),
                at: Some(1_795_255_200_000),
            },
            AnswerPage::default(),
        ),
        (
            "/v1/packages",
            "name=openssl&op=lt&version=1%3A3.0.7-28.el9_4&os=rhel-9&not=false",
            find("openssl < 1:3.0.7-28.el9_4", false),
            page(10_000),
        ),
        (
            "/v1/packages",
            "name=libstdc%2B%2B&os=rhel-9&not=true&op=",
            find("libstdc++", true),
            page(10_000),
        ),
        (
            "/v1/changes",
            "since=1h&vm=a&package=bash&cursor=7&limit=5",
            FleetQuery::Changes {
                since: Some(NOW - 3_600_000),
                vm: Some("a".into()),
                package: Some("bash".into()),
                after: Some(7),
            },
            page(5),
        ),
        (
            "/v1/versions",
            "name=a+b",
            FleetQuery::Versions {
                name: "a b".into(),
                os: None,
            },
            AnswerPage::default(),
        ),
    ] {
        let wanted = ApiCall::Ask {
            query: wanted,
            page: part,
        };
        assert_eq!(
            asked(path, query),
            Ok(WebCall::Ask(wanted)),
            "{path}?{query}"
        );
    }
    let stream = ApiCall::Stream { after: Some(9) };
    assert_eq!(
        asked("/v1/changes/stream", "cursor=9"),
        Ok(WebCall::Ask(stream))
    );
}

#[test]
fn every_operator_is_the_one_of_find() {
    for (op, sign) in [
        ("lt", "<"),
        ("le", "<="),
        ("eq", "="),
        ("ge", ">="),
        ("gt", ">"),
        ("ne", "!="),
    ] {
        let call = asked("/v1/packages", &format!("name=a&op={op}&version=1-1"));
        let Ok(WebCall::Ask(ApiCall::Ask {
            query: FleetQuery::Find { package, .. },
            ..
        })) = call
        else {
            unreachable!("{call:?}")
        };
        assert_eq!(package, format!("a {sign} 1-1"));
    }
}

#[test]
fn nonsense_is_refused_with_what_is_allowed() {
    for (path, query, said) in [
        ("/v1/guests", "so=rhel", "allowed: os, cursor, limit"),
        ("/v1/guests", "os=a&os=b", "os is given twice"),
        ("/v1/guests", "limit=0", "from 1 to 10000"),
        ("/v1/guests", "limit=10001", "from 1 to 10000"),
        ("/v1/guests", "limit=%2B5", "not a whole number"),
        ("/v1/guests", "cursor=a%20b", "cursor: "),
        ("/v1/guests", "os=%ff", "no percent-encoded text"),
        ("/v1/guests", "os=%2", "no percent-encoded text"),
        ("/v1/guests/a%2Fb", "", "letters, digits"),
        ("/v1/guests/%", "", "no percent-encoded text"),
        ("/v1/guests/a", "at=yesterday", "at: "),
        ("/v1/packages", "", "name is needed"),
        ("/v1/packages", "name=a&op=lt", "belong together"),
        ("/v1/packages", "name=a&version=1", "belong together"),
        ("/v1/packages", "name=a&op=%3C&version=1", "none of lt"),
        (
            "/v1/packages",
            "name=a%20%3C%201",
            "an operator stands in op",
        ),
        ("/v1/packages", "name=a&op=lt&version=x%20y", "a version is"),
        ("/v1/packages", "name=a&not=yes", "neither true nor false"),
        ("/v1/changes", "since=soon", "neither a time nor a duration"),
        ("/v1/changes", "cursor=-1", "not a whole number"),
        ("/v1/changes", "limit=1001", "from 1 to 1000"),
        ("/v1/changes/stream", "since=1h", "allowed: cursor"),
        ("/v1/summary", "x=1", "allowed: none"),
    ] {
        let error = usage(path, query);
        assert!(error.contains(said), "{path}?{query}: {error}");
    }
    for path in [
        "",
        "/v1",
        "/v1/",
        "/v1/guests/",
        "/v1/guests/a/b",
        "//",
        "/index.html",
        "/V1/guests",
        "/..",
    ] {
        assert_eq!(asked(path, ""), Err(BadRequest::NoRoute), "{path}");
    }
}

/// The loss: a browser, or what stands before the server, adds a parameter, and the page is gone.
#[test]
fn a_file_is_read_whatever_its_parameters_and_a_login_has_only_a_code() {
    let file = asked("/", "");
    assert!(matches!(file, Ok(WebCall::Static(_))), "{file:?}");
    for query in ["x=1", "v=1&v=2", "%", "code=a"] {
        assert_eq!(asked("/", query), file, "{query}");
    }
    for (query, code) in [
        ("code=a%2Db", Some("a-b")),
        ("", None),
        ("code=", None),
        ("x=1", None),
        ("code=a&code=b", None),
        ("code=a&x=1", None),
    ] {
        let code = code.map(str::to_owned);
        assert_eq!(
            asked("/login", query),
            Ok(WebCall::Login { code }),
            "{query}"
        );
    }
}

#[test]
fn the_description_lists_exactly_the_routes_and_their_parameters() {
    routes::assert_described(ROUTES, include_str!("../openapi.json"));
}

proptest! {
    /// The loss: a request that ends the thread, or that is answered as another one.
    #[test]
    fn any_text_is_a_question_or_refused(
        path in "(/v1)?(/guests|/packages|/versions|/changes|/login)?(/.{0,12})?",
        query in "((name|op|version|os|arch|not|cursor|limit|since|vm|package|at|code)?=?.{0,10}&?){0,5}",
    ) {
        match asked(&path, &query) {
            Ok(WebCall::Ask(ApiCall::Ask { query, page })) => {
                prop_assert!(page.limit.is_none_or(|limit| limit <= MOST_GUESTS));
                if let FleetQuery::Find { package, .. } = &query {
                    let filter: PackageFilter = package.parse().unwrap();
                    prop_assert_eq!(&filter.to_string(), package);
                }
                prop_assert_eq!(FleetQuery::from_word(&query.to_word()).unwrap(), query);
            }
            Ok(_) | Err(BadRequest::NoRoute) => {}
            Err(BadRequest::Usage(what)) => prop_assert!(!what.is_empty()),
        }
    }

    #[test]
    fn any_name_that_is_encoded_is_asked_for_as_it_is(name in "[^<>=!\\s]{1,20}") {
        let call = asked("/v1/packages", &format!("name={}", percent::encode(&name)));
        let WebCall::Ask(ApiCall::Ask { query: FleetQuery::Find { package, .. }, .. }) = call.unwrap() else {
            unreachable!()
        };
        prop_assert_eq!(package, name);
    }
}
