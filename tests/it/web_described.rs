//! The APIs of running services against the descriptions that they give: every route, its errors and its headers.

use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::fleet_rig::FleetRig;
use crate::support::mirror_rig::{MirrorRig, document};
use crate::support::openapi::{ApiDescription, assert_headers};
use crate::support::web::{TOKEN, Web, WebAnswer, bearer, login_address_of};
use serde_json::json;
use std::path::Path;

/// Asks for everything that is described. Paths of data have the targets of this table, and no others; `unknown` is
/// one that is described and not there.
fn ask_all(
    mut described: ApiDescription,
    (command, web, state): (&str, &Web, &Path),
    targets: &[(&str, &[&str])],
    unknown: (&str, &str),
) -> ApiDescription {
    for path in described.paths() {
        if path == "/login" {
            let (_, target) = login_address_of(command, state);
            for (target, headers) in [
                (target.as_str(), ""),
                (&target, ""),
                ("/login", ""),
                (&target, "Host: evil.example\r\n"),
            ] {
                described.check(&path, &web.get(target, headers));
            }
            continue;
        }
        let of_data = targets.iter().find(|(of, _)| *of == path);
        assert!(
            of_data.is_some() || !path.starts_with("/v1/"),
            "nobody asks for {path}"
        );
        for target in of_data.map_or(&[path.as_str()][..], |(_, targets)| targets) {
            described.ask(web, &path, target);
        }
    }
    let (path, target) = unknown;
    described.check(path, &web.get(target, &bearer(TOKEN)));
    described
}

/// The loss: a program made for the description that fails with what is really answered.
#[test]
fn the_fleet_answers_as_its_description_says() {
    let rig = FleetRig::on_tcp(3);
    let kernels = [
        ("kernel_running", "5-1.x86_64"),
        ("kernel_installed", "5-2.x86_64"),
    ];
    rig.agents[0].change(|script| {
        script.os = ("rhel", "9.4");
        let facts = kernels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        script.facts.extend(facts);
        script.packages.push("kernel 5-1".into());
    });
    let mut events = rig.web.events("/v1/changes/stream", &bearer(TOKEN));
    let head = events.until("retry: ").join("\r\n");
    let (rig_agent, web) = (&rig.agents[0], &rig.web);
    rig_agent.install("kernel 5-2");
    rig_agent.install("vim 1-1");
    rig_agent.replace("vim 1-1", "vim 2-1");
    eventually("the last of the changes, accepted", || {
        let changes = rig.data("/v1/changes");
        let last = changes["changes"].as_array()?.last()?.clone();
        (last.to_string().contains("2-1") && last["accepted"].is_array()).then_some(())
    });
    let mut described = ask_all(
        ApiDescription::of(web, true),
        ("fleet", web, &rig.state()),
        &[
            (
                "/v1/guests",
                &["/v1/guests", "/v1/guests?os=rhel-9", "/v1/guests?limit=1"],
            ),
            ("/v1/guests/{id}", &["/v1/guests/g0", "/v1/guests/g1"]),
            (
                "/v1/packages",
                &[
                    "/v1/packages?name=vim&op=gt&version=1-1",
                    "/v1/packages?name=kernel&running=true",
                    "/v1/packages?name=bash-5.1-1&limit=1",
                    "/v1/packages?name=vim&not=true",
                ],
            ),
            (
                "/v1/versions",
                &[
                    "/v1/versions",
                    "/v1/versions?limit=1",
                    "/v1/versions?name=vim",
                ],
            ),
            (
                "/v1/changes",
                &["/v1/changes", "/v1/changes?limit=1", "/v1/changes?vm=g2"],
            ),
            ("/v1/changes/stream", &["/v1/changes/stream"]),
            ("/v1/summary", &["/v1/summary"]),
        ],
        ("/v1/guests/{id}", "/v1/guests/unknown"),
    );
    let running = rig.data("/v1/packages?name=kernel&running=true");
    assert_eq!(running["guests"][0]["kernel_running"], "5-1.x86_64");

    // Of a stream the head is asked for, and each kind of event.
    let begun = WebAnswer {
        code: 200,
        head,
        body: String::new(),
    };
    described.check("/v1/changes/stream", &begun);
    described.check_data("Change", &events.next().1);
    rig_agent.install("emacs 1-1");
    described.check_data("AcceptedReport", &events.accepted());
    // Of a store that cannot be read.
    described.assert_all_asked(&[503]);
    for headers in ["", &bearer(TOKEN)] {
        assert_headers(&web.get("/nowhere", headers));
        assert_headers(&web.ask("POST", "/v1/guests", headers));
    }
    let guest = rig.data("/v1/guests/g0");
    let broken = std::panic::catch_unwind(|| {
        let mut more = guest.clone();
        more["undescribed"] = json!(1);
        described.check_data("GuestDetail", &more);
    });
    assert!(broken.is_err(), "what is not described is found");
}

/// The states of guests are those that are described, whatever becomes of one.
#[test]
fn guests_in_every_state_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script {
        waits: false,
        ..Script::new()
    };
    let polled = FakeAgent::start(&dir.path().join("polled"), script);
    let nobody = format!("gone=unix:{}", dir.path().join("nobody").display());
    let port = crate::support::program::free_port();
    let listen = format!("127.0.0.1:{port}");
    let more = ["--vm", &polled.vm("p"), "--vm", &nobody];
    let rig = FleetRig::start_with(2, Web::Tcp(port), &listen, &more, 3);
    let mut described = ApiDescription::of(&rig.web, true);
    eventually("one is silent", || {
        let summary = rig.data("/v1/summary");
        (summary["oldest_unreachable"]["vm"] == "gone").then_some(())
    });
    for path in ["/v1/guests", "/v1/summary"] {
        described.check(path, &rig.web.get(path, &bearer(TOKEN)));
    }
    let guests = rig.data("/v1/guests");
    assert_eq!(guests["not_stored"], 1, "{guests}");
    let states = guests["guests"].as_array().unwrap().iter();
    let states: Vec<_> = states
        .map(|guest| guest["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["waiting", "waiting", "polled"]);
}

#[test]
fn the_mirror_answers_as_its_description_says() {
    let rig = MirrorRig::new(200);
    // A guard that trips has something to withhold.
    rig.publish(&document(1, 90));
    eventually("deletes are withheld", || {
        let withheld = rig.data("/v1/withheld")["withheld"].as_array()?.len();
        (withheld > 0).then_some(())
    });
    // Racks and components have the columns of their tables beside what is described.
    let described = ask_all(
        ApiDescription::of(&rig.web, false),
        ("mirror", &rig.web, &rig.mirror.state()),
        &[
            ("/v1/racks", &["/v1/racks", "/v1/racks?limit=1"]),
            ("/v1/racks/{id}", &["/v1/racks/r0"]),
            (
                "/v1/drift",
                &["/v1/drift", "/v1/drift?limit=1", "/v1/drift?code=mismatch"],
            ),
            ("/v1/audit", &["/v1/audit", "/v1/audit?limit=1"]),
            ("/v1/withheld", &["/v1/withheld", "/v1/withheld?limit=1"]),
            ("/v1/status", &["/v1/status"]),
        ],
        ("/v1/racks/{id}", "/v1/racks/unknown"),
    );
    described.assert_all_asked(&[503]);
}
