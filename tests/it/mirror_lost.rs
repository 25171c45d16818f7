//! A mirror whose tables are damaged, gone or empty: nothing is begun anew before an operator says so.

use crate::support::eventually;
use crate::support::mirror::Mirror;
use crate::support::program::status;
use serde_json::{Value, json};
use std::fs;
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
    fn start(mirror: &Mirror) -> Self {
        let core = mirror.file("core.json", &racks());
        let core = format!("file:{}", core.display());
        let child = mirror
            .command(&["run", "--interval", "1s", "--core", &core])
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
        let mut service = Service::start(&mirror);
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
        assert!(service.0.try_wait().unwrap().is_none());
        match give_up {
            true => assert!(mirror.output(&["begin-anew"]).status.success()),
            false => fs::rename(&away, &path).unwrap(),
        }
        eventually("it goes on", || {
            (status(&mirror.state(), &[]).0["state"] == "ok").then_some(())
        });
        let pid = service.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        assert!(service.0.wait().unwrap().success());
        assert_eq!(mirror.dump() == before, !give_up);
    }
}
