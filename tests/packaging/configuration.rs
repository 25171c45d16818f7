//! The configuration files that are installed: every setting, its default, and a word about it.

use crate::{read, root};
use afferent::cli::{options::Setting, settings};
use std::collections::BTreeMap;
use std::process::Command;

#[test]
fn the_shipped_configuration_shows_every_setting_with_its_default() {
    for mode in ["serve", "sense", "mirror"] {
        let text = read(&format!("packaging/config/{mode}.toml"));
        let shown = shown(&text);
        for setting in settings(mode) {
            let key = setting.key;
            let values = shown
                .get(key)
                .unwrap_or_else(|| panic!("{mode}.toml does not show {key}"));
            // Its value there was an example: 0.1.0 had no default, which is what `sensor` does unless one pushes.
            let is_example = key == "repo_cpe";
            let is_default = is_comment(&text, key) && !is_example;
            if let (Some(default), true) = (setting.default, is_default) {
                assert_eq!(values.join(","), default, "{mode}.toml: default of {key}");
            }
        }
        for key in shown.keys() {
            let known = |setting: &Setting| setting.key == key;
            assert!(
                settings(mode).is_empty() || settings(mode).iter().any(known),
                "{mode}.toml shows {key}, which is no setting"
            );
        }
    }
}

#[test]
fn the_file_that_the_shipped_sensor_writes_is_rotated() {
    let deliver = plain(
        &toml::from_str::<toml::Table>(&read("packaging/config/sense.toml")).unwrap()["deliver"],
    );
    let directory = "/var/log/afferent/";
    assert!(
        deliver[0].starts_with(&format!("file:{directory}")) && deliver[0].ends_with(".ndjson")
    );
    let rotation = read("packaging/logrotate/afferent");
    assert!(
        rotation.contains(&format!("\n{directory}*.ndjson {{\n")),
        "{rotation}"
    );
    let spec = read("packaging/rpm/afferent.spec");
    assert!(spec.contains("%config(noreplace) %{_sysconfdir}/logrotate.d/afferent"));
}

/// Loss prevented: a message that names a file which no package has.
#[test]
fn the_drop_in_that_messages_name_is_shipped_and_not_active() {
    let shipped = "%{_datadir}/afferent/sense-libvirt.conf";
    let spec = read("packaging/rpm/afferent.spec");
    let installed = format!("packaging/systemd/sense-libvirt.conf %{{buildroot}}{shipped}\n");
    assert!(spec.contains(&installed), "{spec}");
    assert!(!spec.contains("afferent-sense.service.d"));
    let named = shipped.replace("%{_datadir}", "/usr/share");
    for file in [
        "src/sense/roster/libvirt.rs",
        "packaging/systemd/sense-libvirt.conf",
        "packaging/systemd/afferent-sense.service",
        "packaging/config/sense.toml",
        "docs/operations.md",
    ] {
        assert!(read(file).contains(&named), "{file} does not name {named}");
    }
}

#[test]
fn check_config_accepts_the_shipped_configuration() {
    for mode in ["serve", "sense", "mirror"] {
        let file = root().join(format!("packaging/config/{mode}.toml"));
        let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["check-config", mode])
            .arg(&file)
            .output()
            .unwrap();
        assert!(out.status.success(), "{mode}.toml: {out:?}");
    }
}

/// Loss prevented: services that do not start after an upgrade, because rpm keeps a configuration that was
/// edited and this version refuses it.
#[test]
fn check_config_accepts_the_configuration_of_0_1_0_with_every_key_on() {
    let dir = tempfile::tempdir().unwrap();
    for mode in ["serve", "sense", "mirror"] {
        let text = read(&format!("tests/fixtures/v0.1.0/config/{mode}.toml"));
        let all = dir.path().join(format!("{mode}.toml"));
        std::fs::write(&all, switched_on(&text)).unwrap();
        let shipped = root().join(format!("tests/fixtures/v0.1.0/config/{mode}.toml"));
        for file in [&shipped, &all] {
            let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
                .args(["check-config", mode])
                .arg(file)
                .output()
                .unwrap();
            assert!(out.status.success(), "{mode}: {}: {out:?}", file.display());
        }
    }
}

/// The same for what stands in flags and variables, and for what holds where a setting was left out.
#[test]
fn settings_of_0_1_0_keep_their_names_and_defaults() {
    for mode in ["serve", "sense", "mirror"] {
        let text = read(&format!("tests/fixtures/v0.1.0/config/{mode}.toml"));
        let before = shown(&text);
        assert!(before.len() > 10, "{mode}: {before:?}");
        for (key, values) in before {
            let setting = settings(mode).iter().find(|setting| setting.key == key);
            let setting = setting.unwrap_or_else(|| panic!("{mode}: {key} is no setting any more"));
            // Its value there was an example: 0.1.0 had no default, and did what "sensor" does while nobody pushes.
            let is_default = is_comment(&text, &key) && key != "repo_cpe";
            if let (Some(default), true) = (setting.default, is_default) {
                assert_eq!(values.join(","), default, "{mode}: default of {key}");
            }
        }
    }
}

/// Loss prevented: an operator who never learns of a setting, because the package does not say what is new.
#[test]
fn the_changelog_is_shipped_and_names_each_setting_added_since_0_1_0() {
    let spec = read("packaging/rpm/afferent.spec");
    let doc = spec.lines().find_map(|line| line.strip_prefix("%doc "));
    let doc: Vec<_> = doc.unwrap().split(' ').collect();
    for file in &doc {
        assert!(root().join(file).exists(), "%doc {file}");
    }
    assert!(doc.contains(&"CHANGELOG.md") && doc.contains(&"SECURITY.md"));
    let log = read("CHANGELOG.md");
    for mode in ["serve", "sense", "mirror"] {
        let before = shown(&read(&format!("tests/fixtures/v0.1.0/config/{mode}.toml")));
        let of_mode = format!("- Settings of `{mode}`: ");
        let added = log.split("\n- ").find_map(|item| {
            let item = format!("- {item}");
            item.starts_with(&of_mode).then_some(item)
        });
        let added = added.unwrap_or_else(|| panic!("CHANGELOG.md has no {of_mode}"));
        for setting in settings(mode) {
            let key = setting.key;
            let is_named = added.contains(&format!("`{key}`"));
            assert_eq!(is_named, !before.contains_key(key), "{mode}: {key}");
        }
    }
}

#[test]
fn the_shipped_configuration_explains_every_key() {
    for mode in ["serve", "sense", "mirror"] {
        let text = read(&format!("packaging/config/{mode}.toml"));
        for paragraph in text.split("\n\n") {
            let first = paragraph.lines().next().unwrap_or("");
            assert!(
                first.starts_with("# "),
                "{mode}.toml: nothing explains {paragraph}"
            );
        }
    }
}

/// The file with every commented key on.
fn switched_on(text: &str) -> String {
    text.lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with([' ', '#']) => key,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Keys and values as they are when every commented key is switched on.
fn shown(text: &str) -> BTreeMap<String, Vec<String>> {
    let on = switched_on(text);
    let table: toml::Table = toml::from_str(&on).unwrap_or_else(|error| panic!("{error}\n{on}"));
    table
        .into_iter()
        .map(|(key, value)| (key, plain(&value)))
        .collect()
}

fn plain(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::Array(items) => items.iter().flat_map(plain).collect(),
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Integer(number) => vec![number.to_string()],
        other => panic!("{other:?} in a configuration file"),
    }
}

fn is_comment(text: &str, key: &str) -> bool {
    text.lines()
        .any(|line| line.starts_with(&format!("#{key} =")))
}
