//! `afferent status --bundle` of real services: what is in it, and that no secret is.

use crate::support::agent::Launch;
use crate::support::core_server::{Answer, CoreServer};
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{JETSTREAM, NatsServer};
use crate::support::program::{Program, status};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Secrets as they are planted; none has a form that gives it away.
const CONTENT: &str = "k3pt-in-a-file";
const WORDS: &str = "two words";
const PASSWORD: &str = "p4ss-of-n4ts";
const QUERY: &str = "in-the-quer7";
const HEADER: &str = "he4d-er";

/// The text of each file of a bundle, by its name below the top directory.
type Files = BTreeMap<String, String>;

fn bundle(file: &Path, state_dirs: &[&Path], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command.args(["status", "--bundle"]).arg(file);
    for dir in state_dirs {
        command.arg("--state-dir").arg(dir);
    }
    command.env("PATH", path).output().unwrap()
}

fn files(bundle: &Path) -> Files {
    let mut tar = tar::Archive::new(fs::File::open(bundle).unwrap());
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        (
            name.strip_prefix("afferent-support/").unwrap().to_owned(),
            text,
        )
    });
    entries.collect()
}

/// Fails if any of the secrets is in the file, byte for byte.
fn assert_without_secrets(bundle: &Path) {
    let bytes = fs::read(bundle).unwrap();
    for secret in [CONTENT, WORDS, PASSWORD, QUERY, HEADER] {
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "{secret} is in {:#?}", files(bundle));
    }
}

/// A directory with a `journalctl` that prints these lines after its arguments.
fn journal(dir: &Path, lines: &str) -> PathBuf {
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("lines"), lines).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\"\nexec /bin/cat {}/lines\n",
        bin.display()
    );
    fs::write(bin.join("journalctl"), script).unwrap();
    fs::set_permissions(bin.join("journalctl"), fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

/// A server that refuses, and repeats what it was asked and with what.
fn echo() -> CoreServer {
    CoreServer::start(|request| {
        let said = format!(
            "refused {} {:?} {:?}",
            request.path, request.query, request.headers
        );
        Answer::Plain(403, Vec::new(), said.into_bytes())
    })
}

// The loss: an operator who sends a bundle sends the keys of Central, Core and NATS with it.
#[test]
fn a_bundle_of_all_modes_has_every_part_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (content, words) = (
        file("content", &format!("{CONTENT}\n")),
        file("words", WORDS),
    );
    let server = echo();
    let asked = format!("{}/x?key={QUERY}", server.url);

    let launch = Launch::on(dir.path())
        .flag("repo-cpe", &asked)
        .flag("repo-cpe-token-file", &words);
    let _serve = launch.spawn();

    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let sense_state = dir.path().join("sense");
    let more = ["--vm", &agent.vm("a"), "--token-file", &content];
    let _sense = Program::sense(&sense_state, &server.url, &more);

    let mirror_state = dir.path().join("mirror");
    let state = mirror_state.display().to_string();
    let _mirror = Program::start(&["mirror", "run", "--core", &asked, "--state-dir", &state]);

    let dirs = [launch.state_dir(), &sense_state, &mirror_state];
    eventually("every service has failed at its server", || {
        let failed = |dir: &Path| {
            !status(dir, &[]).0["reasons"]
                .as_array()
                .is_none_or(Vec::is_empty)
        };
        dirs.iter().all(|dir| failed(dir)).then_some(())
    });
    let path = journal(
        dir.path(),
        &format!(
            "pushing https://user:{PASSWORD}@central/\n> X-Api-Key: {HEADER}\n\
             the server said {CONTENT} and {WORDS} and {QUERY}\nplain line\n"
        ),
    );
    let out = dir.path().join("bundle.tar");
    let made = bundle(&out, &dirs, &path);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(
        fs::metadata(&out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_without_secrets(&out);

    let files = files(&out);
    for mode in ["serve", "sense", "mirror"] {
        let part = |name: &str| &files[&format!("{mode}/{name}.json")];
        let status: Value = serde_json::from_str(part("status")).unwrap();
        assert_eq!(status["service"], mode);
        let configuration: Value = serde_json::from_str(part("configuration")).unwrap();
        let setting = |key: &str| {
            let all = configuration.as_array().unwrap();
            let found = all.iter().find(|setting| setting["key"] == key);
            found.unwrap_or_else(|| panic!("{mode}: {key}"))["values"][0].clone()
        };
        let masked = format!("{}/x?***", server.url);
        match mode {
            "serve" => {
                assert_eq!(setting("repo_cpe"), masked);
                assert_eq!(setting("repo_cpe_token_file"), words);
            }
            "sense" => assert_eq!(setting("token_file"), content),
            _ => assert_eq!(setting("core"), masked),
        }
    }
    for mode in ["sense", "mirror"] {
        let page = &files[&format!("{mode}/metrics.txt")];
        assert!(page.contains("# TYPE afferent_"), "{page}");
    }
    assert!(files["contents.txt"].contains("serve: the service has no metrics"));
    assert!(files["versions.txt"].contains(env!("CARGO_PKG_VERSION")));
    for store in ["serve.redb", "sense.redb", "mirror.redb"] {
        assert!(files["files.txt"].contains(store), "{}", files["files.txt"]);
    }
    let log = &files["log.txt"];
    assert!(log.contains("-n 1000 -u afferent-serve -u afferent-sense -u afferent-mirror"));
    assert!(log.contains("https://***@central/") && log.contains("plain line"));
    assert!(log.contains("the server said *** and *** and ***"), "{log}");
}

#[test]
fn a_password_of_nats_is_in_no_part_of_a_bundle() {
    let users = format!("authorization {{ user: sensor, password: \"{PASSWORD}\" }}\n");
    let server = NatsServer::start(&format!("{JETSTREAM}{users}"));
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, PASSWORD).unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let state = dir.path().join("state");
    let url = server.url().replace("nats://", "nats://sensor@");
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    // The service's own directory, not that of who asks for the bundle.
    command.current_dir(dir.path()).arg("sense").args([
        "--deliver",
        &url,
        "--vm",
        &agent.vm("a"),
        "--token-file",
        "secret",
        "--state-dir",
        &state.display().to_string(),
    ]);
    let _sense = Program::start_logged(command, &dir.path().join("log"));
    eventually("the report is accepted", || {
        status(&state, &[]).0["guests"][0]["accepted"]
            .is_object()
            .then_some(())
    });
    let out = dir.path().join("bundle.tar");
    let path = journal(dir.path(), &format!("the server said {PASSWORD} again\n"));
    assert!(bundle(&out, &[&state], &path).status.success());
    assert_without_secrets(&out);
    let address = format!("nats://***@{}?***", server.place);
    let configuration = &files(&out)["sense/configuration.json"];
    assert!(configuration.contains(&address), "{configuration}");
}

// The loss: the keys of all sinks but the one that has no name, where there are several.
#[test]
fn the_secret_of_every_sink_is_masked_whether_it_is_typed_or_in_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = [("content", CONTENT), ("words", WORDS)];
    for (name, secret) in secrets {
        fs::write(dir.path().join(name), secret).unwrap();
    }
    let server = echo();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let path = journal(
        dir.path(),
        &format!("it said {CONTENT} and {WORDS} again\n"),
    );
    let table = |name: &str, file: &str| {
        let to = &server.url;
        format!("[[deliver]]\nname = '{name}'\nto = '{to}'\ntoken_file = '{file}'\n")
    };
    let config = dir.path().join("sense.toml");
    fs::write(
        &config,
        table("default", "content") + &table("siem", "words"),
    )
    .unwrap();
    let siem = format!("siem={}", server.url);
    let typed = [
        ["--deliver", &server.url, "--deliver", &siem],
        ["--token-file", "content", "--token-file", "siem=words"],
    ];
    let in_tables = ["--config", config.to_str().unwrap()];
    for (run, args) in [typed.as_flattened(), &in_tables].into_iter().enumerate() {
        let state = dir.path().join(format!("state{run}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
        command.current_dir(dir.path()).arg("sense").args(args);
        command
            .args(["--vm", &agent.vm("a"), "--state-dir"])
            .arg(&state);
        let mut sense = Program::start_logged(command, &dir.path().join("log"));
        eventually("a sink has refused it, and said with what", || {
            let pending = status(&state, &[]).0["guests"][0]["pending"].clone();
            pending["error"].is_string().then_some(())
        });
        let out = dir.path().join(format!("bundle{run}.tar"));
        assert!(bundle(&out, &[&state], &path).status.success());
        assert_without_secrets(&out);
        let files = files(&out);
        assert_eq!(files["contents.txt"], "Nothing is missing.\n");
        // Support reads where reports go, and from which file each secret is.
        let configuration = &files["sense/configuration.json"];
        for said in [&server.url, "content", "words", "siem"] {
            assert!(configuration.contains(said), "{said}: {configuration}");
        }
        sense.kill();
    }
}

/// What is broken is what support asks about: a service that does not run, a machine without a journal.
#[test]
fn a_bundle_says_what_could_not_be_had_and_has_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("sense.redb"), vec![0; 4321]).unwrap();
    let out = dir.path().join("bundle.tar");
    fs::write(&out, "an older one").unwrap();
    let made = bundle(&out, &[&state], dir.path());
    assert!(made.status.success(), "{made:?}");
    let files = files(&out);
    let contents = &files["contents.txt"];
    assert!(contents.contains("no service answers"), "{contents}");
    assert!(contents.contains("log.txt: journalctl: "), "{contents}");
    assert!(!files.contains_key("log.txt"));
    assert!(
        files["files.txt"].contains("4321 "),
        "{}",
        files["files.txt"]
    );
    assert!(files["versions.txt"].contains("afferent "));

    let nowhere = dir.path().join("none/bundle.tar");
    let made = bundle(&nowhere, &[&state], dir.path());
    assert_eq!(made.status.code(), Some(1));
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(said.contains(&nowhere.display().to_string()), "{said}");
    let names = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name());
    assert_eq!(names.count(), 2, "nothing but the bundle is left");
}
