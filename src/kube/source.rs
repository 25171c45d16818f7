//! Where it is written how the API server is reached, and reading it.

use super::KubeError;
use super::config::{ApiAccess, LONGEST_FILE, SERVICE_ACCOUNT, bounded};
use super::kubeconfig;
use std::path::{Path, PathBuf};

/// Where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KubeSource {
    /// This process runs in a pod of the cluster.
    InCluster,
    /// A kubeconfig.
    Kubeconfig(PathBuf),
}

impl KubeSource {
    /// The kubeconfig, where it is one.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::InCluster => None,
            Self::Kubeconfig(path) => Some(path),
        }
    }

    /// Reads it.
    pub(super) fn load(&self) -> Result<ApiAccess, KubeError> {
        let Some(path) = self.file() else {
            let variable = |name: &str| std::env::var(name).ok();
            return ApiAccess::in_cluster(variable, Path::new(SERVICE_ACCOUNT));
        };
        let about =
            |what: &str| KubeError::Configuration(format!("kubeconfig {}: {what}", path.display()));
        let text = bounded(path, LONGEST_FILE).map_err(|error| about(&error))?;
        let text = String::from_utf8(text).map_err(|_| about("it is not UTF-8"))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        kubeconfig::read(&text, folder).map_err(|error| about(&error.to_string()))
    }
}
