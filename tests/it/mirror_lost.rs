//! A mirror whose tables are damaged, gone or empty: nothing is begun anew before an operator says so.

use crate::support::eventually;
use crate::support::mirror::Mirror;
use crate::support::program::{free_port, status};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

fn racks() -> Value {
    json!({"expected_racks": [
        {"id": {"id": "r1"}, "rack_id": "r1", "metadata": {"name": "one", "labels": [
            {"key": "chassis.manufacturer", "value": "m"}, {"key": "chassis.serial-number", "value": "s"}
        ]}}
    ]})
}

fn database(mirror: &Mirror) -> PathBuf {
    mirror.state().join("mirror.redb")
}

/// The service, killed when dropped.
struct Service(Child);

impl Service {
    fn start(mirror: &Mirror, metrics: &str) -> Self {
        let core = mirror.file("core.json", &racks());
        let core = format!("file:{}", core.display());
        let child = mirror
            .command(&[
                "run",
                "--interval",
                "1s",
                "--metrics",
                metrics,
                "--core",
                &core,
            ])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Damage = fn(&PathBuf);

const DAMAGES: [(&str, Damage); 3] = [
    ("is missing", |path| fs::remove_file(path).unwrap()),
    ("is empty", |path| fs::write(path, "").unwrap()),
    ("damaged", |path| fs::write(path, "garbage").unwrap()),
];

// The loss: new ids for a whole data centre, with exit code 0 and no word about it.
#[test]
fn tables_that_were_lost_are_an_error_until_they_are_put_back_or_given_up() {
    for (what, damage) in DAMAGES {
        let mirror = Mirror::new();
        assert_eq!(mirror.run(&racks(), &[]).code, Some(0));
        let (path, before) = (database(&mirror), mirror.dump());
        let whole = fs::read(&path).unwrap();
        damage(&path);
        let left = fs::read(&path).ok();
        for _ in 0..2 {
            let ran = mirror.run(&racks(), &[]);
            assert_eq!(ran.code, Some(1), "{what}: {}", ran.stderr);
            assert!(ran.stderr.contains(what), "{}", ran.stderr);
            assert!(
                ran.stderr.contains("afferent mirror begin-anew"),
                "{}",
                ran.stderr
            );
            assert!(fs::read(&path).ok() == left, "nothing is touched");
        }
        // Put back, the ids are the same.
        fs::write(&path, &whole).unwrap();
        assert_eq!(mirror.run(&racks(), &[]).code, Some(0));
        assert_eq!(mirror.dump(), before);
        // A sound one is not given up by mistake.
        let refused = mirror.output(&["begin-anew"]);
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(mirror.dump(), before);
        damage(&path);
        let begun = mirror.output(&["begin-anew", "--json"]);
        assert!(begun.status.success(), "{what}");
        let aside: Value = serde_json::from_slice(&begun.stdout).unwrap();
        let aside = aside["moved_aside"].as_str().map(fs::read);
        assert!(
            aside.and_then(Result::ok) == left,
            "{what}: it is as it was"
        );
        assert_eq!(mirror.run(&racks(), &[]).code, Some(0));
        assert_ne!(mirror.dump(), before);
    }
}

#[test]
fn the_service_stays_and_says_what_it_lacks_and_goes_on_when_it_is_there_again() {
    for give_up in [false, true] {
        let mirror = Mirror::new();
        assert_eq!(mirror.run(&racks(), &[]).code, Some(0));
        let (path, before) = (database(&mirror), mirror.dump());
        let away = mirror.path("away");
        fs::rename(&path, &away).unwrap();
        let port = free_port().to_string();
        let mut service = Service::start(&mirror, &port);
        let ill = eventually("it says so", || {
            let (answer, code) = status(&mirror.state(), &[]);
            (code == 4).then_some(answer)
        });
        let said = ill["reasons"].to_string();
        assert!(
            said.contains("is missing") && said.contains("begin-anew"),
            "{said}"
        );
        assert!(!path.exists(), "nothing is begun");
        let lost = || {
            let mut peer = TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
            write!(peer, "GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            let mut page = String::new();
            peer.read_to_string(&mut page).unwrap();
            let sample = page
                .lines()
                .find_map(|line| line.strip_prefix("afferent_mirror_store_lost "));
            sample.map(str::to_owned)
        };
        // What the alert asks for.
        assert_eq!(lost().as_deref(), Some("1"));
        assert!(service.0.try_wait().unwrap().is_none());
        match give_up {
            true => assert!(mirror.output(&["begin-anew"]).status.success()),
            false => fs::rename(&away, &path).unwrap(),
        }
        eventually("it goes on", || {
            (status(&mirror.state(), &[]).0["state"] == "ok").then_some(())
        });
        eventually("the alert can end", || {
            (lost().as_deref() == Some("0")).then_some(())
        });
        let pid = service.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        assert!(service.0.wait().unwrap().success());
        assert_eq!(mirror.dump() == before, !give_up);
    }
}

// The loss: identities that only the file that was moved aside still has, removed by a command that
// does not know how long they are to be kept.
#[test]
fn what_was_moved_aside_is_removed_by_the_settings_of_a_run_and_by_no_other_command() {
    let mirror = Mirror::new();
    assert_eq!(mirror.run(&racks(), &[]).code, Some(0));
    let aside = |time: &str| mirror.state().join(format!("mirror.redb.corrupt-{time}"));
    let years: Vec<_> = (1..=7)
        .map(|n| aside(&format!("201{n}-01-01T00:00:00Z")))
        .collect();
    let now = afferent::clock::wall_now();
    let (before, last) = (aside(&format!("{now}")), aside(&format!("{now}-1")));
    for file in years.iter().chain([&before, &last]) {
        fs::write(file, "damaged").unwrap();
    }
    let left = || {
        let entries = fs::read_dir(mirror.state()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".corrupt-")).count()
    };
    fs::write(database(&mirror), "garbage").unwrap();
    assert!(mirror.output(&["begin-anew"]).status.success());
    mirror.load(&mirror.dump());
    assert_eq!(left(), 10);
    for (count, age, expected) in [("9", "8760h", 3), ("2", "1h", 2), ("1", "1h", 1)] {
        let flags = ["--damaged-max-count", count, "--damaged-max-age", age];
        let ran = mirror.run(&racks(), &flags);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("moved aside is removed"),
            "each is told"
        );
        assert_eq!(left(), expected, "{flags:?}");
    }
    let refused = mirror.run(&racks(), &["--damaged-max-count", "101"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}
