//! What an API server sends. Nobody is asked here: a client has no connection, and a reflector tells nothing.

#[path = "../../src/kube/frame.rs"]
#[allow(dead_code, reason = "nothing is sent here")]
pub mod frame;
#[path = "../../src/kube/items.rs"]
pub mod items;
#[path = "../../src/kube/object.rs"]
mod object;

pub use object::{KubeObject, ObjectMeta, Told};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;

/// Never made here.
#[derive(Debug)]
pub enum KubeError {}

impl std::fmt::Display for KubeError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeSource {
    InCluster,
    Kubeconfig(PathBuf),
}

pub struct KubeClient;

impl KubeClient {
    pub fn new(_: KubeSource) -> Self {
        Self
    }
}

pub struct Reflector;

impl Reflector {
    pub fn new(_: Arc<KubeClient>, _: String, _: Option<String>) -> Self {
        Self
    }

    pub fn relist(&self) -> Arc<Notify> {
        Arc::default()
    }

    pub async fn run<T: KubeObject>(self, _: impl FnMut(Told<T>)) {}
}
