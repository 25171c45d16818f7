//! What the client of the API asks for, how long it waits, and what it does when it is refused: its own code against
//! the API server of these tests.

use crate::support::LONGEST_WAIT;
use crate::support::kube_api::{FakeApi, Fault};
use crate::support::kubeconfig::kubeconfig;
use afferent::kube::{
    Deadlines, KubeClient, KubeError, KubeObject, KubeSource, ObjectMeta, Reflector, TlsChoice,
    Told, VsockDialer, VsockTarget,
};
use afferent::transport::DialAddress;
use serde::Deserialize;
use serde_json::json;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VMIS: &str = "/apis/kubevirt.io/v1/virtualmachineinstances";
const JSON: &str = "Content-Type: application/json\r\n";

/// An object of which only its metadata are needed.
#[derive(Deserialize)]
struct Named {
    metadata: ObjectMeta,
}

impl KubeObject for Named {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// Looks again and again, while others of this thread go on.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < LONGEST_WAIT,
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client with this token.
fn client(fake: &FakeApi, token: &str, deadlines: Deadlines) -> KubeClient {
    let authority = fake.dir.path().join("pki/ca.crt");
    let file = kubeconfig(fake.dir.path(), &fake.server, &authority, token);
    KubeClient::with_deadlines(KubeSource::Kubeconfig(file), deadlines)
}

/// Follows all instances, while something else is done.
async fn follow(
    fake: &FakeApi,
    tell: impl FnMut(Told<Named>),
    meanwhile: impl Future<Output = ()>,
) {
    let client = client(fake, "sense-token", Deadlines::default());
    let reflector = Reflector::new(Arc::new(client), VMIS.into(), None);
    tokio::select! {
        () = reflector.run(tell) => unreachable!("it follows for ever"),
        () = meanwhile => {}
    }
}

/// The queries of lists or of watches so far.
fn queries(fake: &FakeApi, watches: bool) -> Vec<String> {
    let targets = fake.seen().targets.into_iter();
    let queries = targets.filter_map(|target| Some(target.split_once('?')?.1.to_owned()));
    queries
        .filter(|query| query.contains("watch=true") == watches)
        .collect()
}

fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
}

#[tokio::test]
async fn a_last_page_without_a_continue_ends_the_list_as_an_empty_one_does() {
    for metadata in [
        json!({"resourceVersion": "100"}),
        json!({"resourceVersion": "100", "continue": ""}),
    ] {
        let fake = FakeApi::start();
        let items = json!([{"metadata": {"name": "a", "namespace": "b", "uid": "c"}}]);
        let list = json!({"items": items, "metadata": metadata}).to_string();
        fake.fail(Fault::Answer("limit=", 200, JSON, list));
        let mut names = Vec::new();
        let watching = until("a watch follows", || !queries(&fake, true).is_empty());
        let tell = |told: Told<Named>| match told {
            Told::Listed(object) => names.push(object.metadata.name),
            Told::Trouble(error) => panic!("{error}"),
            _ => {}
        };
        follow(&fake, tell, watching).await;
        assert_eq!(names, ["a"], "{metadata}");
        assert_eq!(queries(&fake, false), ["limit=500"], "{metadata}");
        let watches = queries(&fake, true);
        assert_eq!(value(&watches[0], "resourceVersion"), Some("100"));
    }
}

/// Loss prevented: a watch that is lost in a quiet cluster begins again at a version that has expired meanwhile.
#[tokio::test]
async fn a_watch_has_bookmarks_and_a_time_of_its_own_and_goes_on_from_the_last_bookmark() {
    let fake = FakeApi::start();
    fake.bookmark_every(Duration::ZERO);
    let meanwhile = async {
        until("there is a watch", || !queries(&fake, true).is_empty()).await;
        // Nothing that is watched: only bookmarks tell of its version.
        let other = json!({"metadata": {"name": "a", "namespace": "b"}});
        fake.put("virtualmachines", other);
        until("a watch goes on from there", || {
            fake.end_watches();
            let watches = queries(&fake, true);
            let last = watches.last().unwrap();
            value(last, "resourceVersion") == Some("101")
        })
        .await;
    };
    follow(&fake, |_| {}, meanwhile).await;
    assert_eq!(queries(&fake, false).len(), 1, "no list was needed");
    for watch in queries(&fake, true) {
        assert_eq!(value(&watch, "allowWatchBookmarks"), Some("true"));
        let time: u32 = value(&watch, "timeoutSeconds").unwrap().parse().unwrap();
        assert!((300..=600).contains(&time), "{watch}");
    }
}

/// Loss prevented: a connection that died without a word, and a cluster that seems to stand still from then on.
#[tokio::test]
async fn a_watch_that_is_silent_for_longer_than_two_bookmarks_is_followed_by_a_list() {
    let fake = FakeApi::start();
    fake.fail(Fault::SilentWatch);
    let well = std::cell::Cell::new(0);
    let tell = |told: Told<Named>| match told {
        Told::Well => well.set(well.get() + 1),
        Told::Trouble(error) => panic!("{error}"),
        _ => {}
    };
    let meanwhile = async {
        // After the list, and when the watch is open.
        until("the silent watch is open", || well.get() == 2).await;
        assert_eq!(fake.faults_left(), 0);
        for (seconds, lists) in [(119, 1), (12, 2)] {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(seconds)).await;
            tokio::time::resume();
            // Long enough for a list that is not due yet.
            tokio::time::sleep(Duration::from_millis(300)).await;
            until("so many lists", || queries(&fake, false).len() >= lists).await;
            assert_eq!(queries(&fake, false).len(), lists);
        }
    };
    follow(&fake, tell, meanwhile).await;
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_read_again_once_and_a_right_that_is_missing_is_not() {
    let fake = FakeApi::start();
    let asked = |code| {
        let fake = &fake;
        async move {
            let before = fake.seen().targets.len();
            let token = if code == 401 {
                "no-token"
            } else {
                "nobody-token"
            };
            let asked = client(fake, token, Deadlines::default()).get(VMIS).await;
            let error = asked.err().unwrap();
            assert_eq!(error.refusal().unwrap().code, code, "{error}");
            fake.seen().targets.len() - before
        }
    };
    assert_eq!(asked(401).await, 2);
    assert_eq!(asked(403).await, 1);
    // The next token is good.
    let unauthorized = json!({"reason": "Unauthorized", "message": "Unauthorized", "code": 401});
    fake.fail(Fault::Answer(VMIS, 401, JSON, unauthorized.to_string()));
    let client = client(&fake, "sense-token", Deadlines::default());
    assert!(client.get(VMIS).await.is_ok());
}

/// Loss prevented: nobody on the way to a guest ends a connection that hangs.
#[tokio::test]
async fn each_step_of_a_question_to_the_api_has_a_deadline() {
    let began = Instant::now();
    let short = Duration::from_millis(200);
    let fake = FakeApi::start();
    let with = |change: fn(&mut Deadlines, Duration)| {
        let mut deadlines = Deadlines {
            connect: LONGEST_WAIT,
            head: LONGEST_WAIT,
            body: LONGEST_WAIT,
        };
        change(&mut deadlines, short);
        client(&fake, "sense-token", deadlines)
    };

    // A server that accepts, and does not speak TLS.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", silent.local_addr().unwrap());
    let authority = fake.dir.path().join("pki/ca.crt");
    let file = kubeconfig(fake.dir.path(), &server, &authority, "silent");
    let deadlines = Deadlines {
        connect: short,
        ..Deadlines::default()
    };
    let source = KubeSource::Kubeconfig(file);
    let connecting = KubeClient::with_deadlines(source, deadlines);
    let failed = connecting.get(VMIS).await.err();
    assert_eq!(failed, Some(KubeError::Timeout("connection")));

    fake.fail(Fault::Silence("virtualmachineinstances"));
    let failed = with(|it, time| it.head = time).get(VMIS).await.err();
    assert_eq!(failed, Some(KubeError::Timeout("answer")));

    fake.fail(Fault::Silence("/vsock"));
    let dialer = VsockDialer::new(Arc::new(with(|it, time| it.head = time)), TlsChoice::Off);
    let failed = dialer.dial(TARGET).await.err();
    assert_eq!(failed, Some(KubeError::Timeout("answer")));

    fake.fail(Fault::SilentWatch);
    let client = with(|it, time| it.body = time);
    let watch = format!("{VMIS}?watch=true&resourceVersion=100");
    let mut body = client.get(&watch).await.unwrap();
    let failed = body.next(&mut Vec::new()).await.err();
    assert_eq!(failed, Some(KubeError::Timeout("more of its answer")));
    assert_eq!(fake.faults_left(), 0);
    assert!(began.elapsed() < LONGEST_WAIT, "another step's deadline");
}

const TARGET: VsockTarget<'_> = VsockTarget {
    namespace: "a",
    name: "b",
    port: 818,
};

/// Loss prevented: a sensor that goes on dialing an API server that has too much to do.
#[tokio::test]
async fn too_many_requests_halve_the_dials_and_none_begins_before_the_time_that_is_named() {
    let fake = FakeApi::start();
    let client = client(&fake, "sense-token", Deadlines::default());
    let dialer = VsockDialer::new(Arc::new(client), TlsChoice::Off);
    assert_eq!(dialer.look(), (0, 20, 0));
    let busy = "Too many requests, please try again later.\n".to_owned();
    fake.fail(Fault::Answer("/vsock", 429, "Retry-After: 2\r\n", busy));
    let began = Instant::now();
    {
        let _seat = dialer.seat().await;
        let refused = dialer.dial(TARGET).await.unwrap_err();
        assert!(refused.refusal().unwrap().is_overload(), "{refused}");
    }
    assert_eq!(dialer.look(), (0, 10, 1));
    let _seat = dialer.seat().await;
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[test]
fn waits_are_held_from_the_node_and_not_through_the_api() {
    for (address, may) in [
        ("kubevirt:a/b", false),
        ("vsock:3:818", true),
        ("unix:/run/a.sock", true),
    ] {
        let address: DialAddress = address.parse().unwrap();
        assert_eq!(address.can_hold_waits(), may, "{address}");
    }
}
