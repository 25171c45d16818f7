//! Settings of `afferent sense` for guests in a Kubernetes cluster.

use super::options::{ConfigError, Settings, parse};
use crate::kube::{KubeSource, TlsChoice};
use crate::sense::roster::RosterSource;
use crate::sense::roster::kubevirt::{DialRoute, KubevirtSource};

/// What `--discover` takes for them.
pub(super) const KUBEVIRT: &str = "kubevirt";

/// Where the API server is.
pub(super) fn api(settings: &Settings) -> Result<KubeSource, ConfigError> {
    let file = settings.optional_path("kubeconfig")?;
    Ok(file.map_or(KubeSource::InCluster, KubeSource::Kubeconfig))
}

/// Whether KubeVirt speaks TLS to agents.
pub(super) fn tls(settings: &Settings) -> Result<TlsChoice, ConfigError> {
    settings.one("kube_tls", parse::any)
}

/// The sources that `--discover` names.
pub(super) fn discovered(settings: &Settings) -> Result<Vec<RosterSource>, ConfigError> {
    let texts = settings.all("discover", |text| Ok(text.to_owned()))?;
    if texts.iter().filter(|text| *text == KUBEVIRT).count() > 1 {
        let (_, origin) = settings.text("discover");
        return Err(ConfigError::new(
            origin,
            "discover",
            "kubevirt is there twice",
        ));
    }
    let cluster = match texts.iter().any(|text| text == KUBEVIRT) {
        true => Some(cluster(settings)?),
        false => None,
    };
    settings.all("discover", |text| match &cluster {
        Some(cluster) if text == KUBEVIRT => Ok(RosterSource::Kubevirt(cluster.clone())),
        _ => text.parse(),
    })
}

fn cluster(settings: &Settings) -> Result<KubevirtSource, ConfigError> {
    let cluster = settings.optional("kube_cluster", cluster_name)?;
    let Some(cluster) = cluster else {
        return Err(settings.missing("kube_cluster", "is needed with --discover kubevirt"));
    };
    let dialing = settings.one("dial", parse::any::<DialRoute>)?;
    let node = settings.optional("kube_node", object_name)?;
    if dialing == DialRoute::Node && node.is_none() {
        return Err(settings.missing("kube_node", "is needed with --dial node"));
    }
    Ok(KubevirtSource {
        cluster: cluster.into(),
        namespace: settings.optional("kube_namespace", object_name)?,
        node,
        dialing,
        port: settings.number("kube_port")?,
        api: api(settings)?,
    })
}

/// Short enough that an id with a UID behind it is one.
fn cluster_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    match (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is not 1 to 63 of letters, digits, - and _"
        )),
    }
}

/// As Kubernetes names namespaces and nodes.
fn object_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    match (1..=253).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no name of a namespace or node")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sense::tests::configured;
    use super::*;

    fn wrong(args: &[&str]) -> String {
        let all = [&["--deliver", "file:/o", "--discover", "kubevirt"], args].concat();
        configured(&all).err().unwrap().to_string()
    }

    #[test]
    fn a_cluster_needs_a_name_and_dialing_from_the_node_the_node() {
        for (args, said) in [
            (&[][..], "kube-cluster: is needed"),
            (&["--kube-cluster", "a:b"], "1 to 63 of letters"),
            (
                &["--kube-cluster", "a", "--dial", "node"],
                "kube-node: is needed",
            ),
            (&["--kube-cluster", "a", "--dial", "ssh"], "not api or node"),
            (
                &["--kube-cluster", "a", "--kube-tls", "on"],
                "not true, false or auto",
            ),
            (
                &["--kube-cluster", "a", "--kube-namespace", "A/b"],
                "no name of a namespace",
            ),
            (
                &["--kube-cluster", "a", "--discover", "kubevirt"],
                "there twice",
            ),
        ] {
            let text = wrong(args);
            assert!(text.contains(said), "{args:?}: {text}");
        }
    }

    #[test]
    fn a_sensor_of_a_node_asks_for_its_machines_only() {
        let args = "--deliver file:/o --discover kubevirt --kube-cluster prod --dial node --kube-node n1 \
                    --kube-port 819 --kubeconfig /k";
        let args: Vec<&str> = args.split_whitespace().collect();
        let config = configured(&args).unwrap();
        let expected = KubevirtSource {
            cluster: "prod".into(),
            namespace: None,
            node: Some("n1".into()),
            dialing: DialRoute::Node,
            port: 819,
            api: KubeSource::Kubeconfig("/k".into()),
        };
        assert_eq!(config.sources[1], RosterSource::Kubevirt(expected));
        assert_eq!(config.kube, KubeSource::Kubeconfig("/k".into()));
        assert_eq!(config.kube_tls, TlsChoice::Auto);
    }
}
