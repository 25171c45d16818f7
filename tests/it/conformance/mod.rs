//! Whether StackRox takes what an agent sends, and understands it: an oracle, and requirements by name.
//!
//! `docs/stackrox.md` says what each field holds and why. Where the tests of the twelve requirements
//! are:
//!
//! | # | What the wire holds | Test |
//! |---|---|---|
//! | 1 | CPE of packages and sources | `requirements::every_package_and_every_source_has_the_cpe_of_everything` |
//! | 2 | `introduced_in` | `requirements::every_environment_names_a_layer` |
//! | 3 | a source, a `-` in each version | `requirements::a_package_without_source_or_release_has_an_empty_source_and_release_0` |
//! | 4 | CPEs that bind | `requirements::a_cpe_name_that_does_not_bind_is_that_of_everything`, `..::a_cpe_of_the_mapping_that_does_not_bind_costs_only_itself`; `serve::repo_cpe::a_cpe_that_is_none_is_left_out_and_told_once_for_one_content` |
//! | 5 | mapped repositories only | `requirements::repositories_are_mapped_ones_and_nothing_else` |
//! | 6 | repositories of removed packages | `requirements::repositories_of_packages_that_are_gone_are_there`; `scan_provenance::the_repositories_of_the_history_are_also_those_of_packages_that_are_gone` |
//! | 7 | `repository_ids`, hints | `requirements::a_package_without_an_entry_may_be_from_any_mapped_repository`, `..::an_entry_that_no_mapped_repository_has_names_none`, `..::an_entry_of_a_mapped_repository_names_exactly_that`, `..::every_entry_has_its_repository_in_the_hint` |
//! | 8 | version of the distribution | `requirements::rhel_oracle_and_sles_have_a_major_version_and_others_their_own` |
//! | 9 | tokens and generations | `serve_protocol::clients_of_both_generations_read_the_same_answer`; `wire::meta::both_generations_are_read_from_one_message`; `wire::request::a_field_of_another_type_is_stepped_over` |
//! | 10 | a wait that an agent does not know | `requirements::pull_polls_an_agent_that_cannot_wait_and_says_so` |
//! | 11 | facts | `scan_provenance::facts_say_what_the_files_of_the_system_say`, `..::the_version_of_a_system_other_than_rhel_stands_with_its_name` |
//! | 12 | repositories of StackRox's own agent | `requirements::a_repository_of_stackroxs_own_agent_has_its_repoid_as_its_id` |

mod behaviours;
mod broken;
mod cpe_syntax;
mod guests;
mod mapping;
mod oracle;
mod properties;
mod pushes;
mod requirements;

use crate::support::agent::Launch;
use crate::support::fixtures;
use crate::support::headers::Fields;
use afferent::report::Report;
use afferent::wire::message::GetReportResponse;
use guests::{Item, MAPPING, Nevra, item};
use oracle::check;
use prost::Message;
use std::path::Path;

/// os-release texts, of real systems and of none.
const SYSTEMS: [(&str, &str); 12] = [
    (
        "rhel",
        "NAME=\"Red Hat Enterprise Linux\"\nVERSION=\"9.4 (Plow)\"\nID=\"rhel\"\nVERSION_ID=\"9.4\"\nCPE_NAME=\"cpe:/o:redhat:enterprise_linux:9::baseos\"\n",
    ),
    (
        "oracle",
        "NAME=\"Oracle Linux Server\"\nVERSION=\"9.4\"\nID=\"ol\"\nVERSION_ID=\"9.4\"\nCPE_NAME=\"cpe:/o:oracle:linux:9:4:server\"\n",
    ),
    (
        "sles",
        "NAME=\"SLES\"\nVERSION=\"15-SP5\"\nVERSION_ID=\"15.5\"\nID=\"sles\"\nCPE_NAME=\"cpe:/o:suse:sles:15:sp5\"\n",
    ),
    (
        "sles for sap",
        "NAME=\"SLES\"\nVERSION=\"15-SP5\"\nVERSION_ID=\"15.5\"\nID=\"sles_sap\"\nCPE_NAME=\"cpe:/o:suse:sles_sap:15:sp5\"\n",
    ),
    (
        "amazon",
        "NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nVERSION_ID=\"2023\"\nCPE_NAME=\"cpe:2.3:o:amazon:amazon_linux:2023\"\n",
    ),
    (
        "fedora",
        "NAME=\"Fedora Linux\"\nVERSION=\"42 (Server Edition)\"\nID=fedora\nVERSION_ID=42\nCPE_NAME=\"cpe:/o:fedoraproject:fedora:42\"\n",
    ),
    (
        "a CPE with spaces",
        "ID=rhel\nVERSION_ID=9.4\nCPE_NAME=\"cpe:/o:some thing:x:1\"\n",
    ),
    (
        "a CPE that is none",
        "ID=rhel\nVERSION_ID=9.4\nCPE_NAME=\"nonsense\"\n",
    ),
    ("no VERSION_ID", "ID=rhel\nVERSION=\"9.4 (Plow)\"\n"),
    ("no version at all", "ID=rhel\n"),
    (
        "no ID",
        "VERSION_ID=9.4\nCPE_NAME=cpe:/o:redhat:enterprise_linux:9\n",
    ),
    ("an empty file", ""),
];

// The loss: a whole distribution whose every report Scanner V4 refuses.
#[test]
fn every_real_database_gives_a_report_that_holds_all_rules() {
    let mut checked = 0;
    for (number, entry) in std::fs::read_dir(fixtures::directory())
        .unwrap()
        .enumerate()
    {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !entry.path().is_dir() || name == "no-packages-table-sqlite" {
            continue;
        }
        let root = fixtures::unpack(&name);
        let bare = guests::report(root.path(), None);
        check_both(root.path(), &format!("{name} alone"));
        let (system, text) = SYSTEMS[number % SYSTEMS.len()];
        guests::os_release(root.path(), text);
        let items = history_of(&bare);
        match number % 2 {
            0 => guests::dnf4(root.path(), &items),
            _ => guests::dnf5(root.path(), &items),
        }
        check_both(root.path(), &format!("{name} as {system} with a history"));
        checked += 1;
    }
    assert_eq!(checked, 13);
}

/// Installations of two of three packages, from all kinds of repositories in turn.
fn history_of(report: &Report) -> Vec<Item> {
    let repositories = [
        "baseos",
        "appstream",
        "epel",
        "@System",
        "anaconda",
        "half",
        "wild",
        "with space/é",
    ];
    let packages = report.packages.iter().enumerate();
    packages
        .filter(|(n, _)| n % 3 != 2)
        .map(|(n, package)| {
            let repository = repositories[n % repositories.len()];
            (Nevra::of(package), repository.into(), 1, 1)
        })
        .collect()
}

fn check_both(root: &Path, what: &str) {
    for mapping in [None, Some(MAPPING)] {
        let report = guests::report(root, mapping);
        check(
            &guests::sent(&report),
            &format!("{what}, mapping: {}", mapping.is_some()),
        );
    }
}

// The loss: a kind of guest whose every report Scanner V4 refuses.
#[test]
fn every_kind_of_guest_gives_a_report_that_holds_all_rules() {
    let root = guests::with(&["a", "b", "c", "d"]);
    let place = root.path();
    let all4 = ["a", "b", "c", "d"].map(|name| item(name, "baseos", 1, 1));
    let few = [item("d", "appstream", 1, 1)];
    let mixed = [
        item("a", "half", 1, 1),
        item("b", "epel", 1, 1),
        // A transaction that failed, and one that took away what rpm put back.
        item("c", "baseos", 1, 2),
        item("d", "baseos", 1, 1),
        item("d", "@System", 8, 1),
    ];
    let of_dnf5 = [
        item("a", "with space/é", 1, 2),
        item("b", "@commandline", 1, 2),
        item("c", "wild", 1, 3),
        item("d", "invalid", 1, 2),
        item("d", "@System", 5, 2),
    ];
    check_both(place, "no history");
    for (what, items) in [("all", &all4[..]), ("cloud image", &few), ("mixed", &mixed)] {
        guests::dnf4(place, items);
        check_both(place, &format!("dnf4, {what}"));
    }
    guests::dnf5(place, &of_dnf5);
    check_both(place, "both histories");
    std::fs::remove_file(place.join(crate::support::dnf_history::DNF4_PLACE)).unwrap();
    check_both(place, "dnf5");
    for (system, text) in SYSTEMS {
        guests::os_release(place, text);
        check_both(place, system);
    }
    std::fs::remove_file(place.join("etc/os-release")).unwrap();
    check_both(place, "no os-release");
    assert!(guests::contents(place, None).distributions.is_empty());
}

// The loss: an agent that sends something else than what was tested.
#[test]
fn what_an_agent_sends_over_its_socket_holds_all_rules() {
    // The client of the tests compares digests, and the release that is sent for none is not digested.
    let mut headers = odd_headers();
    headers.retain(|header| header.without.is_empty());
    let root = guests::with_headers(&headers);
    let mapping = root.path().join("mapping.json");
    std::fs::write(&mapping, MAPPING).unwrap();
    let items = [
        item("plain", "baseos", 1, 1),
        item("local", "@commandline", 1, 1),
    ];
    guests::dnf4(root.path(), &items);
    let launch = Launch::on(root.path()).flag("repo-cpe", mapping.to_str().unwrap());
    let agent = launch.start();
    crate::support::eventually("the first scan has ended", || {
        agent.get().refusal().is_none().then_some(())
    });
    let answer = ReportAlone::decode(agent.get_bytes().as_slice()).unwrap();
    let index = answer.report.unwrap().index_report.unwrap();
    check(&index, "over the socket");
    let contents = index.contents.unwrap();
    assert_eq!(contents.packages.len(), headers.len());
    assert_eq!(contents.repositories.len(), 2);
}

/// An answer without its meta, which for these clients is of two layouts at once.
#[derive(Clone, PartialEq, prost::Message)]
struct ReportAlone {
    #[prost(message, optional, tag = "2")]
    report: Option<GetReportResponse>,
}

/// Headers that lack something, or have bytes in them that are no text.
fn odd_headers() -> Vec<Fields> {
    const RELEASE: u32 = 1002;
    let named = Fields::named;
    vec![
        named("plain"),
        named("local"),
        Fields {
            source_rpm: None,
            ..named("no-source")
        },
        Fields {
            source_rpm: Some(b"odd.src.rpm".into()),
            ..named("odd-source")
        },
        Fields {
            without: vec![RELEASE],
            ..named("no-release")
        },
        Fields {
            arch: None,
            ..named("no-arch")
        },
        Fields {
            name: b"caf\xe9\\n".into(),
            ..named("latin")
        },
        Fields {
            name: b"back\\slash".into(),
            ..named("slash")
        },
        Fields {
            epoch: Some(7),
            version: b"2~rc".into(),
            ..named("epoch")
        },
        Fields {
            modularity_label: Some(b"m:s:1:c".into()),
            ..named("module")
        },
    ]
}
