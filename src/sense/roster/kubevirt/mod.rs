//! Guests of a Kubernetes cluster with KubeVirt, as its API tells them.
//!
//! ```text
//! API server ── reflect: VirtualMachineInstances ──┐
//!            ── reflect: VirtualMachines ──────────┴─► cluster * ──► guests, whenever the roster is read
//! ```
//!
//! A sensor of a node watches the instances that run there, and no machines: a machine that is stopped is on no
//! node. Whatever the API server does, guests stay until it said that they are gone.

mod cluster;
mod kept;
mod objects;

use crate::clock;
use crate::kube::{KubeClient, KubeSource, Reflector};
use crate::report::Facts;
use cluster::{Cluster, ClusterReading};
use objects::{VirtualMachine, VirtualMachineInstance};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Label of an instance with the node on which it runs.
const NODE_LABEL: &str = "kubevirt.io/nodeName";

/// How guests are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialRoute {
    /// Through the API server: a short exchange at a time.
    Api,
    /// By CID, from the node on which they run.
    Node,
}

impl std::str::FromStr for DialRoute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "api" => Ok(Self::Api),
            "node" => Ok(Self::Node),
            _ => Err(format!("{text:?} is not api or node")),
        }
    }
}

/// Where guests come from, and how they are named and reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubevirtSource {
    /// First part of every id.
    pub cluster: Arc<str>,
    /// Only these; `None`: of all namespaces.
    pub namespace: Option<String>,
    /// Only those that run there.
    pub node: Option<String>,
    /// How they are reached.
    pub dialing: DialRoute,
    /// VSOCK port of their agents.
    pub port: u32,
    /// Where the API server is.
    pub api: KubeSource,
}

impl KubevirtSource {
    fn is_node_local(&self) -> bool {
        self.node.is_some()
    }
}

/// Why a guest that is there is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It does not run.
    Stopped,
    /// It is being started or has ended.
    Phase(Arc<str>),
    /// It is paused.
    Paused,
    /// It was deleted a moment ago, or left the node.
    Gone,
    /// It has no VSOCK device.
    NoVsock,
    /// It has a VSOCK device and no CID to dial.
    NoCid,
    /// Another machine of the node has the same CID.
    SharedCid,
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("it does not run"),
            Self::Phase(phase) => {
                let phase = crate::visible::visible(phase);
                write!(f, "it does not run yet or any more: phase {phase:?}")
            }
            Self::Paused => f.write_str("it is paused"),
            Self::Gone => f.write_str("it was deleted or left the node, and is forgotten in a minute"),
            Self::NoVsock => f.write_str(
                "it has no VSOCK: set spec.template.spec.domain.devices.autoattachVSOCK: true in its VirtualMachine, and restart it",
            ),
            Self::NoCid => f.write_str(
                "it has no CID: is KubeVirt's feature gate VSOCK on? Then restart the machine",
            ),
            Self::SharedCid => f.write_str(
                "another machine of this node has the same CID: each has a VSOCK namespace of its own here, which needs --dial api",
            ),
        }
    }
}

/// What the cluster says of a running machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFacts {
    cid: Option<u32>,
    node: Arc<str>,
    phase: Arc<str>,
    addresses: Box<str>,
    os: Arc<str>,
    kernel: Arc<str>,
}

impl MachineFacts {
    /// As facts of a document.
    pub fn add_to(&self, facts: &mut Facts) {
        let cid = self.cid.map(|cid| cid.to_string()).unwrap_or_default();
        for (name, value) in [
            ("cid", cid.as_str()),
            ("node", &self.node),
            ("phase", &self.phase),
            ("addresses", &self.addresses),
            ("guest_os", &self.os),
            ("guest_kernel", &self.kernel),
        ] {
            if !value.is_empty() {
                let value: String = value.chars().take(1024).collect();
                facts.insert(format!("{}{name}", crate::report::facts::KUBEVIRT), value);
            }
        }
    }
}

/// Follows a cluster until it is dropped.
pub(super) struct ClusterWatch {
    cluster: Arc<Mutex<Cluster>>,
    tasks: Vec<JoinHandle<()>>,
    relist: (Arc<Notify>, Option<Arc<Notify>>),
}

impl Drop for ClusterWatch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl ClusterWatch {
    /// Begins to follow.
    pub(super) fn start(source: &KubevirtSource) -> Self {
        let client = Arc::new(KubeClient::new(source.api.clone()));
        let cluster = Arc::new(Mutex::new(Cluster::new(source.clone())));
        let namespace = source.namespace.as_ref();
        let path = |plural: &str| match namespace {
            None => format!("/apis/kubevirt.io/v1/{plural}"),
            Some(namespace) => format!("/apis/kubevirt.io/v1/namespaces/{namespace}/{plural}"),
        };
        let selector = source.node.as_ref();
        let selector = selector.map(|node| format!("{NODE_LABEL}={node}"));
        let instances = Reflector::new(client.clone(), path("virtualmachineinstances"), selector);
        let relist_instances = instances.relist();
        let to = cluster.clone();
        let mut tasks = vec![tokio::spawn(instances.run::<VirtualMachineInstance>(
            move |told| {
                lock(&to).take_instance(told, clock::now());
            },
        ))];
        let mut relist_machines = None;
        if !source.is_node_local() {
            let machines = Reflector::new(client, path("virtualmachines"), None);
            relist_machines = Some(machines.relist());
            let to = cluster.clone();
            tasks.push(tokio::spawn(machines.run::<VirtualMachine>(move |told| {
                lock(&to).take_machine(told, clock::now());
            })));
        }
        Self {
            cluster,
            tasks,
            relist: (relist_instances, relist_machines),
        }
    }

    /// The guests now.
    pub(super) fn read(&self) -> ClusterReading {
        assert!(
            !self.tasks.iter().any(JoinHandle::is_finished),
            "a watch of the cluster ended, which it never does"
        );
        let reading = lock(&self.cluster).read(clock::now());
        if reading.confirm.0 {
            self.relist.0.notify_one();
        }
        if let (true, Some(machines)) = (reading.confirm.1, &self.relist.1) {
            machines.notify_one();
        }
        reading
    }
}

fn lock(cluster: &Mutex<Cluster>) -> std::sync::MutexGuard<'_, Cluster> {
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}
