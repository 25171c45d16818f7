//! The manifests agree with each other and with the program. Loss prevented: a pod that does not start because of a file,
//! a variable or a port that is called otherwise.

use crate::{read, root};
use serde_yaml_ng::{Deserializer, Value};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn manifests() -> PathBuf {
    root().join("packaging/kubernetes")
}

/// Every object in a file.
fn objects(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let documents = Deserializer::from_str(&text);
    let values = documents.map(serde::Deserialize::deserialize);
    let values: Result<Vec<Value>, _> = values.collect();
    values.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The only container of the pods of a Deployment or DaemonSet, and their volumes.
fn pod(path: &str) -> (Value, Value) {
    let object = objects(&manifests().join(path)).remove(0);
    let spec = object["spec"]["template"]["spec"].clone();
    let containers = spec["containers"].as_sequence().unwrap();
    assert_eq!(containers.len(), 1);
    (containers[0].clone(), spec["volumes"].clone())
}

fn texts(list: &Value, key: &str) -> BTreeSet<String> {
    let list = list.as_sequence().unwrap().iter();
    list.map(|it| it[key].as_str().unwrap().to_owned())
        .collect()
}

const PODS: [&str; 2] = ["api/deployment.yaml", "node/daemonset.yaml"];

#[test]
fn kustomizations_name_all_files_beside_them_and_no_others() {
    for directory in fs::read_dir(manifests()).unwrap() {
        let directory = directory.unwrap().path();
        if directory.ends_with("guests") {
            continue;
        }
        let kustomization = objects(&directory.join("kustomization.yaml")).remove(0);
        let mut named: BTreeSet<String> = kustomization["resources"]
            .as_sequence()
            .unwrap()
            .iter()
            .map(|it| it.as_str().unwrap().to_owned())
            .collect();
        for other in named.extract_if(.., |it| it.starts_with("../")) {
            assert!(directory.join(&other).is_dir(), "{other}");
        }
        named.insert("kustomization.yaml".into());
        let beside = fs::read_dir(&directory).unwrap();
        let beside = beside.map(|it| it.unwrap().file_name().into_string().unwrap());
        let beside: BTreeSet<String> = beside.filter(|it| it.ends_with(".yaml")).collect();
        assert_eq!(beside, named, "{}", directory.display());
        for file in &beside {
            assert!(!objects(&directory.join(file)).is_empty(), "{file}");
        }
    }
}

#[test]
fn the_configuration_and_the_variables_of_the_pods_are_settings_of_the_sensor() {
    let configuration = manifests().join("base/sense.toml");
    for path in PODS {
        let (container, _) = pod(path);
        let variables = texts(&container["env"], "name");
        let mut check = Command::new(env!("CARGO_BIN_EXE_afferent"));
        check
            .args(["check-config", "--show", "sense"])
            .arg(&configuration);
        for variable in &variables {
            let value = match variable.as_str() {
                "AFFERENT_DIAL" => "node",
                "AFFERENT_STATE_DIR" => "/var/lib/afferent",
                _ => "a-name",
            };
            check.env(variable, value);
        }
        let shown = check.output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        let text = String::from_utf8(shown.stdout).unwrap();
        for variable in variables {
            let said = format!("environment {variable}");
            assert!(
                text.lines().any(|line| line.ends_with(&said)),
                "{path}: {variable}"
            );
        }
    }
}

#[test]
fn files_and_ports_of_the_configuration_are_where_the_pods_have_them() {
    let text = read("packaging/kubernetes/base/sense.toml");
    let value = |key: &str| {
        let lines = text.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        values.next().unwrap().trim_matches('"').to_owned()
    };
    let port: u64 = value("metrics")
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let token = PathBuf::from(value("token_file"));
    for path in PODS {
        let (container, volumes) = pod(path);
        assert_eq!(container["ports"][0]["containerPort"].as_u64(), Some(port));
        let mounts = &container["volumeMounts"];
        let places = texts(mounts, "mountPath");
        assert!(places.contains(token.parent().unwrap().to_str().unwrap()));
        // A directory cannot be made in a volume that is read only.
        for place in &places {
            let above = Path::new(place).ancestors().skip(1);
            let mut above = above.filter_map(|it| it.to_str());
            assert!(
                !above.any(|it| places.contains(it)),
                "{place} is in another volume"
            );
        }
        let configuration = container["args"][2].as_str().unwrap();
        let configuration = Path::new(configuration);
        assert!(places.contains(configuration.parent().unwrap().to_str().unwrap()));
        assert_eq!(configuration.file_name().unwrap(), "sense.toml");
        assert_eq!(texts(mounts, "name"), texts(&volumes, "name"), "{path}");
        let mut env = container["env"].as_sequence().unwrap().iter();
        let state = env.find(|it| it["name"] == "AFFERENT_STATE_DIR").unwrap();
        assert!(places.contains(state["value"].as_str().unwrap()));
    }
}

#[test]
fn pods_have_no_privileges() {
    for path in PODS {
        let (container, _) = pod(path);
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"][0], "ALL");
        let object = objects(&manifests().join(path)).remove(0);
        let spec = &object["spec"]["template"]["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec.get(shared).is_none(), "{shared}");
        }
    }
}
