//! How a client is told of an API server.

use std::path::{Path, PathBuf};

/// Writes a kubeconfig of this API server, its authority and a token.
pub fn kubeconfig(directory: &Path, server: &str, authority: &Path, token: &str) -> PathBuf {
    let path = directory.join(format!("kubeconfig-{token}"));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts:\n- name: it\n  context: {{cluster: it, user: it}}\n\
         clusters:\n- name: it\n  cluster:\n    server: {server}\n    certificate-authority: {}\n\
         users:\n- name: it\n  user:\n    token: {token}\n",
        authority.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}
