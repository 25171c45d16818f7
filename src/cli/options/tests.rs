//! Where a value comes from, and what a declaration becomes.

use super::*;
use argh::FromArgs as _;

settings! {
    /// Of the tests.
    table SETTINGS;
    /// Test.
    #[argh(subcommand, name = "test")]
    struct TestArgs {
        settings {
            /// time between two polls
            poll_interval: duration from "1s" to "10m" = "5m";
            /// address
            listen: many "ADDR" = "vsock:818";
            /// mapping
            repo_cpe: one "FILE" or "no mapping";
        }
    }
}

/// Every setting of every command: its key, and the setting.
fn all() -> impl Iterator<Item = (&'static str, &'static Setting)> {
    let of = |command| {
        crate::cli::settings(command)
            .iter()
            .map(move |s| (command, s))
    };
    ["serve", "sense", "mirror"].into_iter().flat_map(of)
}

/// The loss: a configuration whose sinks stand in tables, shown as one without any.
#[test]
fn what_stands_in_tables_is_shown_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sense.toml");
    let text = "[[deliver]]\nto = 'https://c'\n[[deliver]]\nname = 'dt'\ntags = ['a', 'b']\nrate = 5\n\
                [[vm]]\nid = 'g'\n";
    std::fs::write(&file, text).unwrap();
    let shown = |flags: Flags| {
        let table = crate::cli::settings("sense");
        let settings = Settings::gather(table, flags, |_| None, Some(&file), &["deliver", "vm"]);
        let settings = settings.unwrap();
        let shown = settings.effective();
        let rows = shown.as_array().unwrap().iter();
        let rows = rows.filter(|row| {
            let key = row["key"].as_str().unwrap();
            ["deliver", "vm"].iter().any(|of| key.starts_with(of))
        });
        let rows = rows.map(|row| {
            let values = row["values"].as_array().unwrap().iter();
            let values: Vec<&str> = values.filter_map(serde_json::Value::as_str).collect();
            format!("{}={}", row["key"].as_str().unwrap(), values.join(","))
        });
        let rows: Vec<String> = rows.collect();
        assert!(
            rows.iter()
                .all(|row| settings.show().contains(row.split('=').next().unwrap()))
        );
        rows
    };
    assert_eq!(
        shown(Vec::new()),
        [
            "vm[1].id=g",
            "deliver[1].to=https://c",
            "deliver[2].name=dt",
            "deliver[2].rate=5",
            "deliver[2].tags=a,b"
        ]
    );
    // Guests of both count, and of sinks those that were typed.
    let typed = [("vm", "a=unix:/a"), ("deliver", "file:/f")];
    let typed = typed.map(|(key, value)| (key, vec![value.to_owned()]));
    assert_eq!(
        shown(typed.into()),
        ["vm=a=unix:/a", "vm[1].id=g", "deliver=file:/f"]
    );
}

#[test]
fn a_declared_bound_and_a_default_are_values_of_their_setting() {
    for (command, setting) in all() {
        let (least, greatest) = setting.range.unzip();
        for value in [setting.default, least, greatest].into_iter().flatten() {
            let given = vec![(setting.key, vec![value.to_owned()])];
            let table = crate::cli::settings(command);
            let settings = Settings::gather(table, given, |_| None, None, &[]).unwrap();
            let read = match setting.value {
                "DURATION" => settings.duration(setting.key).map(drop),
                "NUMBER" => settings.decimal(setting.key).map(drop),
                "MIB" => settings.number(setting.key).map(drop),
                "on|off" => settings.on_off(setting.key).map(drop),
                _ => settings
                    .all(setting.key, |_| match setting.range {
                        None => Ok(()),
                        Some(_) => Err("has a range, and is no number".into()),
                    })
                    .map(drop),
            };
            assert_eq!(read, Ok(()), "{command} {}", setting.key);
        }
    }
}

#[test]
fn a_declaration_is_a_flag_with_its_range_and_default_in_the_help() {
    let Err(help) = TestArgs::from_args(&["test"], &["--help"]) else {
        panic!("--help is a flag of argh")
    };
    let help = help.output.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [
        "[--poll-interval <DURATION>] [--listen <ADDR...>] [--repo-cpe <FILE>]",
        "--poll-interval time between two polls, 1s to 10m (default 5m)",
        "--listen address, may be repeated (default vsock:818)",
        "--repo-cpe mapping (default: no mapping)",
    ] {
        assert!(help.contains(line), "{help}");
    }
    let typed = ["--listen", "a", "--repo-cpe", "b", "--listen", "c"];
    let typed = TestArgs::from_args(&["test"], &typed).unwrap().given();
    let list = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    let wanted = [
        ("poll_interval", list(&[])),
        ("listen", list(&["a", "c"])),
        ("repo_cpe", list(&["b"])),
    ];
    assert_eq!(typed, wanted);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = file("poll_interval = '1m'\nlisten = ['a', 'b']\n");
    let environment = |name: &str| (name == "AFFERENT_POLL_INTERVAL").then(|| "2m".to_owned());
    let gather =
        |flags| Settings::gather(SETTINGS, flags, environment, Some(file.path()), &[]).unwrap();
    assert_eq!(gather(vec![]).text("poll_interval").0, ["2m"]);
    assert_eq!(
        gather(vec![("poll_interval", vec!["3m".into()])])
            .text("poll_interval")
            .0,
        ["3m"]
    );
    assert_eq!(gather(vec![]).text("listen").0, ["a", "b"]);
    let bare = Settings::gather(SETTINGS, vec![], |_| None, None, &[]).unwrap();
    assert_eq!(
        bare.text("poll_interval"),
        (vec!["5m".to_owned()], SettingOrigin::Default)
    );
    assert_eq!(bare.optional("repo_cpe", parse::path).unwrap(), None);
}

#[test]
fn a_variable_keeps_the_mode_of_an_address_with_the_address() {
    let values = values_of("vsock:818,tls=kubevirt, vsock:819,,unix:/s,tls=off");
    let wanted = ["vsock:818,tls=kubevirt", "vsock:819", "unix:/s,tls=off"];
    assert_eq!(values, wanted);
}

#[test]
fn an_unknown_key_names_the_file_the_key_and_what_is_allowed() {
    let file = file("pol_interval = '1m'\n");
    let error = Settings::gather(SETTINGS, vec![], |_| None, Some(file.path()), &[])
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(text.contains(&file.path().display().to_string()), "{text}");
    assert!(
        text.contains("pol_interval: no such setting; allowed are poll_interval, listen"),
        "{text}"
    );
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn a_bad_value_is_a_usage_error_where_it_was_typed_and_a_configuration_error_elsewhere() {
    let typed = vec![("poll_interval", vec!["2h".to_owned()])];
    let typed = Settings::gather(SETTINGS, typed, |_| None, None, &[]).unwrap();
    let error = typed.duration("poll_interval").unwrap_err();
    assert_eq!(
        error.to_string(),
        "--poll-interval: 2h is out of range: from 1s to 10m"
    );
    assert_eq!(error.exit_code(), 2);

    let file = file("poll_interval = '2h'\n");
    let written = Settings::gather(SETTINGS, vec![], |_| None, Some(file.path()), &[]).unwrap();
    assert_eq!(
        written.duration("poll_interval").unwrap_err().exit_code(),
        3
    );
}

#[test]
fn a_list_of_tables_is_kept_for_the_command_and_a_list_of_values_is_the_setting() {
    let gather = |text: &str| {
        let file = file(text);
        Settings::gather(SETTINGS, vec![], |_| None, Some(file.path()), &["listen"]).unwrap()
    };
    let tables = gather("[[listen]]\nid = 'a'\n");
    assert!(tables.table("listen").is_some());
    assert_eq!(tables.text("listen").1, SettingOrigin::Default);
    for (text, values) in [
        ("listen = ['a=unix:/a']", vec!["a=unix:/a"]),
        ("listen = 'a'", vec!["a"]),
        ("listen = []", vec![]),
    ] {
        let settings = gather(text);
        assert!(settings.table("listen").is_none(), "{text}");
        assert_eq!(settings.text("listen").0, values, "{text}");
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn a_configuration_file_that_is_a_fifo_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let gathered = Settings::gather(SETTINGS, Vec::new(), |_| None, Some(&path), &[]);
    let said = gathered.err().map(|error| error.to_string());
    assert!(said.is_some_and(|said| said.contains("is no regular file")));
}
