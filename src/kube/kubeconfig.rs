//! Kubeconfig files: the one context that is current.

use super::KubeError;
use super::config::{ApiAccess, Material, Token};
use data_encoding::BASE64;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextNames,
}

#[derive(Deserialize)]
struct ContextNames {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterFields,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct ClusterFields {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: Option<UserFields>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct UserFields {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    username: Option<String>,
    #[serde(rename = "as")]
    impersonates: Option<String>,
}

/// Reads a kubeconfig; relative paths in it are relative to `folder`.
///
/// # Errors
/// It cannot be read, or its current context asks for what is not supported.
pub(super) fn read(text: &str, folder: &Path) -> Result<ApiAccess, KubeError> {
    let wrong = KubeError::Configuration;
    // The message of the parser names a place, and never a value.
    let file: Kubeconfig = serde_yaml_ng::from_str(text).map_err(|error| {
        let place = error.location().map_or(String::new(), |at| {
            format!(", line {} column {}", at.line(), at.column())
        });
        wrong(format!("it is no kubeconfig{place}"))
    })?;
    let name = &file.current_context;
    let context = file.contexts.into_iter().find(|it| it.name == *name);
    let Some(NamedContext { context, .. }) = context else {
        return Err(wrong(format!(
            "its current-context {name:?} is not among its contexts; kubectl config use-context sets one"
        )));
    };
    let cluster = file
        .clusters
        .into_iter()
        .find(|it| it.name == context.cluster);
    let Some(NamedCluster { cluster, .. }) = cluster else {
        return Err(wrong(format!("it has no cluster {:?}", context.cluster)));
    };
    let user = file.users.into_iter().find(|it| it.name == context.user);
    let user = user.and_then(|it| it.user).unwrap_or_default();
    access(cluster, user, folder)
}

fn access(cluster: ClusterFields, user: UserFields, folder: &Path) -> Result<ApiAccess, KubeError> {
    let refused = [
        (
            user.exec.is_some(),
            "an exec plugin; afferent runs no programs",
        ),
        (user.auth_provider.is_some(), "an auth-provider"),
        (user.username.is_some(), "a user name and password"),
        (user.impersonates.is_some(), "another user's name (as)"),
        (cluster.proxy_url.is_some(), "a proxy-url"),
        (
            cluster.insecure_skip_tls_verify,
            "insecure-skip-tls-verify; give certificate-authority",
        ),
    ];
    if let Some((_, what)) = refused.iter().find(|(is_there, _)| *is_there) {
        return Err(KubeError::Configuration(format!(
            "its current context has {what}: supported are token, tokenFile and a client certificate; \
             kubectl create token makes a token for a service account"
        )));
    }
    let certificate = material(
        user.client_certificate,
        user.client_certificate_data,
        folder,
    )?;
    let key = material(user.client_key, user.client_key_data, folder)?;
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(KubeError::Configuration(
                "a client certificate needs its key, and a key its certificate".into(),
            ));
        }
    };
    let token = match (user.token_file, user.token) {
        (Some(path), _) => Some(Token::File(folder.join(path))),
        (None, Some(token)) => Some(Token::Text(token)),
        (None, None) => None,
    };
    ApiAccess::new(
        &cluster.server,
        cluster.tls_server_name,
        material(
            cluster.certificate_authority,
            cluster.certificate_authority_data,
            folder,
        )?,
        client,
        token,
    )
}

/// Data in the file counts before the name of another.
fn material(
    path: Option<PathBuf>,
    data: Option<String>,
    folder: &Path,
) -> Result<Option<Material>, KubeError> {
    if let Some(data) = data {
        let pem = BASE64.decode(data.trim().as_bytes());
        let pem = pem.map_err(|_| KubeError::Configuration("a ...-data is no base64".into()))?;
        return Ok(Some(Material::Pem(pem)));
    }
    Ok(path.map(|path| Material::File(folder.join(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: here
preferences: {}
contexts:
- context: {cluster: c1, namespace: x, user: u1}
  name: other
- context:
    cluster: c2
    user: u2
  name: here
clusters:
- cluster:
    server: https://wrong.example
  name: c1
- cluster:
    certificate-authority: ca.crt
    server: https://[::1]:6443/clusters/7
    tls-server-name: api.example
  name: c2
users:
- name: u1
- name: u2
  user:
    tokenFile: /secret/token
    token: not-this-one
";

    fn error(text: &str) -> String {
        read(text, Path::new("/etc")).err().unwrap().to_string()
    }

    #[test]
    fn the_current_context_says_where_and_as_whom() {
        let access = read(FILE, Path::new("/etc/kube")).unwrap();
        assert_eq!((access.host.as_str(), access.port), ("::1", 6443));
        assert_eq!(access.prefix, "/clusters/7");
        assert_eq!(access.tls_name, "api.example");
        assert_eq!(
            access.roots,
            Some(Material::File("/etc/kube/ca.crt".into()))
        );
        assert_eq!(access.token, Some(Token::File("/secret/token".into())));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (from, to, said) in [
            (
                "tokenFile: /secret/token",
                "exec: {command: aws, args: [a]}",
                "exec plugin",
            ),
            (
                "tokenFile: /secret/token",
                "auth-provider: {name: gcp}",
                "auth-provider",
            ),
            (
                "tokenFile: /secret/token",
                "username: u",
                "user name and password",
            ),
            (
                "tls-server-name: api.example",
                "insecure-skip-tls-verify: true",
                "insecure-skip",
            ),
            (
                "tls-server-name: api.example",
                "proxy-url: http://p",
                "proxy-url",
            ),
            (
                "tokenFile: /secret/token",
                "client-certificate-data: aGk=",
                "needs its key",
            ),
            (
                "tokenFile: /secret/token",
                "client-key-data: '%'",
                "no base64",
            ),
            (
                "https://[::1]:6443/clusters/7",
                "http://127.0.0.1:8001",
                "https://",
            ),
            (
                "current-context: here",
                "current-context: gone",
                "\"gone\" is not among",
            ),
            ("cluster: c2", "cluster: c3", "no cluster \"c3\""),
        ] {
            assert!(FILE.contains(from));
            let said_now = error(&FILE.replacen(from, to, 1));
            assert!(said_now.contains(said), "{to}: {said_now}");
        }
    }

    /// Loss prevented: a token in the log.
    #[test]
    fn a_file_that_is_broken_is_said_without_what_is_in_it() {
        let broken = FILE.replace("token: not-this-one", "token: [not-this-one");
        let said = error(&broken);
        assert!(said.contains("no kubeconfig, line"), "{said}");
        assert!(!said.contains("not-this-one"), "{said}");
        let said = error(&FILE.replace("token: not-this-one", "token: {x: secret}"));
        assert!(!said.contains("secret"), "{said}");
    }
}
