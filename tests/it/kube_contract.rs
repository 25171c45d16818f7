//! What an API server with KubeVirt answers, as a table of cases that runs twice: against the fake of these tests, every
//! time, and against a real kube-apiserver with a double of virt-api where `AFFERENT_KUBE_PEER` names its folder
//! (`make check-kube`). A case that passes against one only is a fault of the fake.

use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::https::{Https, HttpsAnswer};
use crate::support::kube_api::FakeApi;
use crate::support::kubeconfig::kubeconfig;
use afferent::kube::{
    KubeClient, KubeError, KubeSource, TlsChoice, VsockDialer, VsockTarget, WebSocket,
};
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An API server under test.
pub struct Peer {
    pub server: String,
    pub folder: PathBuf,
    is_real: bool,
    https: Https,
}

const VMIS: &str = "virtualmachineinstances";

impl Peer {
    pub fn new(server: &str, folder: &Path) -> Self {
        Self {
            server: server.into(),
            folder: folder.to_owned(),
            is_real: false,
            https: Https::new(server, &folder.join("pki/ca.crt")),
        }
    }

    /// The real one, where it is.
    pub fn real() -> Option<Self> {
        let folder = std::env::var("AFFERENT_KUBE_PEER").ok()?;
        let server = std::env::var("AFFERENT_KUBE_SERVER");
        let server = server.unwrap_or_else(|_| "https://127.0.0.1:6443".into());
        Some(Self {
            is_real: true,
            ..Self::new(&server, Path::new(&folder))
        })
    }

    fn get(&self, path: &str) -> HttpsAnswer {
        self.https.ask("GET", path, Some("sense-token"), "")
    }

    fn get_as(&self, token: Option<&str>, path: &str) -> HttpsAnswer {
        self.https.ask("GET", path, token, "")
    }

    fn write(&self, method: &str, path: &str, body: &Value) -> HttpsAnswer {
        let answer = self
            .https
            .ask(method, path, Some("admin-token"), &body.to_string());
        assert!(answer.code < 300, "{method} {path}: {answer:?}");
        answer
    }

    /// A namespace that no other case has.
    pub fn namespace(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("case-{}-{n}", std::process::id());
        self.write(
            "POST",
            "/api/v1/namespaces",
            &json!({"metadata": {"name": name}}),
        );
        name
    }

    pub fn create(&self, namespace: &str, plural: &str, object: &Value) -> Value {
        let path = format!("/apis/kubevirt.io/v1/namespaces/{namespace}/{plural}");
        self.write("POST", &path, object).json()
    }

    pub fn replace(&self, namespace: &str, plural: &str, object: &Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = format!("/apis/kubevirt.io/v1/namespaces/{namespace}/{plural}/{name}");
        self.write("PUT", &path, object).json()
    }

    pub fn delete(&self, namespace: &str, plural: &str, name: &str) {
        let path = format!("/apis/kubevirt.io/v1/namespaces/{namespace}/{plural}/{name}");
        self.write("DELETE", &path, &json!({}));
    }

    /// A kubeconfig for this token.
    pub fn kubeconfig(&self, directory: &Path, token: &str) -> PathBuf {
        let authority = self.folder.join("pki/ca.crt");
        kubeconfig(directory, &self.server, &authority, token)
    }

    pub fn agent(&self, namespace: &str, name: &str) -> PathBuf {
        self.folder.join(format!("agents/{namespace}.{name}.818"))
    }

    /// Dials a machine with the product's own client.
    fn dial(
        &self,
        token: &str,
        tls: TlsChoice,
        machine: (&str, &str),
    ) -> Result<WebSocket, KubeError> {
        let directory = tempfile::tempdir().unwrap();
        let file = self.kubeconfig(directory.path(), token);
        let client = Arc::new(KubeClient::new(KubeSource::Kubeconfig(file)));
        let dialer = VsockDialer::new(client, tls);
        let (namespace, name) = machine;
        runtime().block_on(dialer.dial(VsockTarget {
            namespace,
            name,
            port: 818,
        }))
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    })
}

/// A running machine with a CID.
pub fn vmi(name: &str, cid: u32) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": {"kubevirt.io/nodeName": "n1"}},
        "spec": {"domain": {"devices": {"autoattachVSOCK": true}}},
        "status": {"phase": "Running", "nodeName": "n1", "VSOCKCID": cid,
            "interfaces": [{"name": "default", "ipAddress": "10.0.0.7", "ipAddresses": ["10.0.0.7"]}],
            "guestOSInfo": {"id": "rhel", "prettyName": "Red Hat Enterprise Linux 9.4", "kernelRelease": "5.14.0"}},
    })
}

fn list_path(namespace: &str) -> String {
    format!("/apis/kubevirt.io/v1/namespaces/{namespace}/{VMIS}")
}

/// A stretch of the table.
type Case = (&'static str, fn(&Peer));

const CASES: &[Case] = &[
    ("an empty list has items and an empty continue", |peer| {
        let list = peer.get(&list_path(&peer.namespace())).json();
        assert_eq!(list["items"], json!([]));
        assert_eq!(list["metadata"]["continue"], "");
        assert!(list["metadata"]["resourceVersion"].is_string());
        assert_eq!(list["kind"], "VirtualMachineInstanceList");
    }),
    ("an object has the fields that are read", |peer| {
        let namespace = peer.namespace();
        peer.create(&namespace, VMIS, &vmi("a", u32::MAX));
        let object = peer.get(&format!("{}/a", list_path(&namespace))).json();
        assert_eq!(object["status"]["VSOCKCID"], u32::MAX);
        assert!(
            object["metadata"]["uid"]
                .as_str()
                .unwrap()
                .parse::<uuid::Uuid>()
                .is_ok()
        );
        assert!(object["metadata"]["resourceVersion"].is_string());
        assert_eq!(object["metadata"]["namespace"], namespace);
        assert_eq!(object["status"]["guestOSInfo"]["kernelRelease"], "5.14.0");
    }),
    (
        "pages share a version and the last one has no more",
        |peer| {
            let namespace = peer.namespace();
            for name in ["a", "b", "c"] {
                peer.create(&namespace, VMIS, &vmi(name, 3));
            }
            let first = peer
                .get(&format!("{}?limit=2", list_path(&namespace)))
                .json();
            assert_eq!(first["items"].as_array().unwrap().len(), 2);
            let more = first["metadata"]["continue"].as_str().unwrap();
            assert_ne!(more, "");
            let more: String = more.bytes().map(|b| format!("%{b:02X}")).collect();
            let last = peer
                .get(&format!(
                    "{}?limit=2&continue={more}",
                    list_path(&namespace)
                ))
                .json();
            assert_eq!(last["items"][0]["metadata"]["name"], "c");
            assert_eq!(last["metadata"]["continue"], "");
            assert_eq!(
                last["metadata"]["resourceVersion"],
                first["metadata"]["resourceVersion"]
            );
        },
    ),
    (
        "a node is selected by its label and not by a field",
        |peer| {
            let namespace = peer.namespace();
            peer.create(&namespace, VMIS, &vmi("a", 3));
            let mut other = vmi("b", 4);
            other["metadata"]["labels"]["kubevirt.io/nodeName"] = "n2".into();
            peer.create(&namespace, VMIS, &other);
            let path = list_path(&namespace);
            let list = peer
                .get(&format!("{path}?labelSelector=kubevirt.io%2FnodeName%3Dn2"))
                .json();
            let names: Vec<_> = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|o| &o["metadata"]["name"])
                .collect();
            assert_eq!(names, ["b"]);
            let refused = peer.get(&format!("{path}?fieldSelector=status.nodeName%3Dn1"));
            assert_eq!(
                (refused.code, refused.json()["reason"].clone()),
                (400, "BadRequest".into())
            );
        },
    ),
    ("a watch tells what happened since its version", |peer| {
        let namespace = peer.namespace();
        let path = list_path(&namespace);
        let version = peer.get(&path).json()["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned();
        let object = peer.create(&namespace, VMIS, &vmi("a", 3));
        let mut changed = object;
        changed["status"]["VSOCKCID"] = 9.into();
        peer.replace(&namespace, VMIS, &changed);
        peer.delete(&namespace, VMIS, "a");
        let watch = format!(
            "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds=2&resourceVersion={version}"
        );
        let events = peer.get(&watch).events();
        let kinds: Vec<_> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
        assert_eq!(&kinds[..3], ["ADDED", "MODIFIED", "DELETED"], "{kinds:?}");
        assert!(
            kinds[3..].iter().all(|kind| *kind == "BOOKMARK"),
            "{kinds:?}"
        );
        assert_eq!(events[1]["object"]["status"]["VSOCKCID"], 9);
        // A deleted object is whole, with a version of its own.
        assert_eq!(events[2]["object"]["status"]["VSOCKCID"], 9);
        let versions: Vec<_> = events
            .iter()
            .map(|e| e["object"]["metadata"]["resourceVersion"].clone())
            .collect();
        assert_ne!(versions[2], versions[1]);
    }),
    (
        "a watch in which nothing happens has a bookmark before its end",
        |peer| {
            let namespace = peer.namespace();
            let path = list_path(&namespace);
            let list = peer.get(&path).json();
            let version = list["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .to_owned();
            // The real one sends none in a watch of a few seconds.
            let time = if peer.is_real { 30 } else { 1 };
            let watch = format!(
                "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={time}&resourceVersion={version}"
            );
            let events = peer.get(&watch).events();
            let mark = events
                .last()
                .unwrap_or_else(|| panic!("nothing in {time} s"));
            assert_eq!(mark["type"], "BOOKMARK");
            assert!(mark["object"]["metadata"]["resourceVersion"].is_string());
        },
    ),
    (
        "a label that leaves is DELETED and one that comes is ADDED",
        |peer| {
            let namespace = peer.namespace();
            let object = peer.create(&namespace, VMIS, &vmi("a", 3));
            let version = object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .to_owned();
            let mut moved = object;
            moved["metadata"]["labels"]["kubevirt.io/nodeName"] = "n2".into();
            peer.replace(&namespace, VMIS, &moved);
            for (node, kind) in [("n1", "DELETED"), ("n2", "ADDED")] {
                let watch = format!(
                    "{}?watch=true&timeoutSeconds=1&resourceVersion={version}&labelSelector=kubevirt.io%2FnodeName%3D{node}",
                    list_path(&namespace)
                );
                let events = peer.get(&watch).events();
                let kinds: Vec<_> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
                assert_eq!(kinds, [kind], "{node}");
            }
        },
    ),
    (
        "a watch from a version too old is 200, and one ERROR event",
        |peer| {
            let answer = peer.get(&format!(
                "/apis/kubevirt.io/v1/{VMIS}?watch=true&resourceVersion=1"
            ));
            assert_eq!(answer.code, 200);
            let events = answer.events();
            assert_eq!((events.len(), &events[0]["type"]), (1, &json!("ERROR")));
            let status = &events[0]["object"];
            assert_eq!(
                (&status["code"], &status["reason"]),
                (&json!(410), &json!("Expired"))
            );
        },
    ),
    (
        "a version newer than the newest is 504 with a time to come again",
        |peer| {
            let answer = peer.get(&format!(
                "/apis/kubevirt.io/v1/{VMIS}?resourceVersion=999999999"
            ));
            assert_eq!(
                (answer.code, answer.json()["reason"].clone()),
                (504, "Timeout".into())
            );
            assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
        },
    ),
    ("nonsense is 400 with a status", |peer| {
        for (query, code) in [("continue=nonsense", 400), ("resourceVersion=x", 400)] {
            let answer = peer.get(&format!("/apis/kubevirt.io/v1/{VMIS}?{query}"));
            assert_eq!(
                (answer.code, answer.json()["kind"].clone()),
                (code, "Status".into()),
                "{query}"
            );
        }
    }),
    ("a resource that is absent is plain text", |peer| {
        let answer = peer.get_as(Some("admin-token"), "/apis/kubevirt.io/v1/nosuchthings");
        assert_eq!(
            (answer.code, answer.body.as_str()),
            (404, "404 page not found\n")
        );
    }),
    (
        "who has no token is anonymous, an unknown token is 401, and rights are missed by name",
        |peer| {
            let path = format!("/apis/kubevirt.io/v1/{VMIS}");
            let anonymous = peer.get_as(None, &path);
            assert_eq!(anonymous.code, 403);
            assert!(anonymous.body.contains("system:anonymous"), "{anonymous:?}");
            let unknown = peer.get_as(Some("no-token"), &path);
            assert_eq!(
                (unknown.code, unknown.json()["reason"].clone()),
                (401, "Unauthorized".into())
            );
            let nobody = peer.get_as(Some("nobody-token"), &path).json();
            let message = nobody["message"].as_str().unwrap().to_owned();
            for part in [
                "\"nobody\"",
                "cannot list resource \"virtualmachineinstances\"",
                "API group \"kubevirt.io\"",
                "cluster scope",
            ] {
                assert!(message.contains(part), "{message}");
            }
        },
    ),
    (
        "a machine that cannot be dialed is refused with the reason",
        |peer| {
            let namespace = peer.namespace();
            let mut detached = vmi("detached", 3);
            detached["spec"] = json!({"domain": {"devices": {}}});
            peer.create(&namespace, VMIS, &detached);
            let mut starting = vmi("starting", 4);
            starting["status"]["phase"] = "Scheduling".into();
            peer.create(&namespace, VMIS, &starting);
            peer.create(&namespace, VMIS, &vmi("running", 5));
            for (token, name, code, said) in [
                (
                    "sense-token",
                    "nobody",
                    404,
                    "virtualmachineinstance.kubevirt.io \"nobody\" not found",
                ),
                ("sense-token", "detached", 400, "VSOCK is not attached."),
                (
                    "sense-token",
                    "starting",
                    400,
                    "phase is Scheduling instead of Running or Scheduled",
                ),
                (
                    "nobody-token",
                    "running",
                    403,
                    "cannot get resource \"virtualmachineinstances/vsock\"",
                ),
                ("no-token", "running", 401, "does not accept the token"),
            ] {
                let error = peer
                    .dial(token, TlsChoice::Off, (&namespace, name))
                    .unwrap_err();
                assert_eq!(
                    error.refusal().map(|refusal| refusal.code),
                    Some(code),
                    "{name}: {error}"
                );
                assert!(error.to_string().contains(said), "{error}");
            }
        },
    ),
    (
        "no agent on the port, or one that does not speak TLS, is an end without a byte",
        |peer| {
            let namespace = peer.namespace();
            peer.create(&namespace, VMIS, &vmi("none", 3));
            peer.create(&namespace, VMIS, &vmi("plain", 4));
            let _agent = FakeAgent::start(&peer.agent(&namespace, "plain"), Script::new());
            for (name, tls) in [
                ("none", TlsChoice::Off),
                ("none", TlsChoice::On),
                ("plain", TlsChoice::On),
            ] {
                let mut websocket = peer.dial("sense-token", tls, (&namespace, name)).unwrap();
                let mut bytes = Vec::new();
                runtime()
                    .block_on(websocket.read_to_end(&mut bytes))
                    .unwrap();
                assert_eq!(bytes, b"", "{name}");
            }
        },
    ),
    (
        "bytes arrive whole in both directions, and the end of the agent ends the stream",
        |peer| {
            let namespace = peer.namespace();
            peer.create(&namespace, VMIS, &vmi("echo", 3));
            let listener = UnixListener::bind(peer.agent(&namespace, "echo")).unwrap();
            let sent: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
            let len = sent.len();
            let agent = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = vec![0; len];
                std::io::Read::read_exact(&mut stream, &mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            });
            let websocket = peer
                .dial("sense-token", TlsChoice::Off, (&namespace, "echo"))
                .unwrap();
            let (mut read, mut write) = tokio::io::split(websocket);
            let echoed = runtime().block_on(async {
                let sending = async {
                    write.write_all(&sent).await.unwrap();
                    write.flush().await.unwrap();
                };
                let mut echoed = Vec::new();
                let reading = read.read_to_end(&mut echoed);
                let ((), read) = tokio::join!(sending, reading);
                read.unwrap();
                echoed
            });
            agent.join().unwrap();
            assert!(echoed == sent, "{} of {len} bytes", echoed.len());
        },
    ),
];

fn run(peer: &Peer) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        println!("case: {name}");
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(peer))).is_err() {
            failed.push(name);
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} cases: {failed:#?}",
        failed.len(),
        CASES.len()
    );
}

#[test]
fn the_fake_api_answers_as_the_table_says() {
    let fake = FakeApi::start();
    run(&Peer::new(&fake.server, fake.dir.path()));
}

#[test]
fn a_real_kube_apiserver_answers_as_the_table_says() {
    match Peer::real() {
        Some(peer) => run(&peer),
        None => println!("skipped: no real kube-apiserver; make check-kube builds and starts one"),
    }
}

/// A node lets go of a guest at once whose agent keeps its connection open.
#[test]
fn a_stream_that_is_dropped_ends_with_a_close_frame() {
    let fake = FakeApi::start();
    let peer = Peer::new(&fake.server, fake.dir.path());
    let namespace = peer.namespace();
    peer.create(&namespace, VMIS, &vmi("open", 3));
    let agent = UnixListener::bind(peer.agent(&namespace, "open")).unwrap();
    let machine = (namespace.as_str(), "open");
    let websocket = peer.dial("sense-token", TlsChoice::Off, machine).unwrap();
    let (_held, _) = agent.accept().unwrap();
    runtime().block_on(async move { drop(websocket) });
    eventually("the close frame has come", || {
        (fake.seen().closed_well == 1).then_some(())
    });
}
