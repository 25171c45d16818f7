//! Each way to break a report, once: an oracle that takes everything proves nothing.

use super::guests::{self, MAPPING, contents, item};
use super::oracle::{Rule, WILDCARD, check, violations};
use afferent::wire::message::{
    Contents, Distribution, Environment, IndexReport, Package, Repository,
};
use std::collections::BTreeSet;

type Break = fn(&mut Contents);
type BreakOfAll = fn(&mut IndexReport);

const BREAKS: &[(Rule, Break)] = &[
    (Rule::Id, |c| package(c).id = "9".into()),
    (Rule::Id, |c| repository(c).id = "9".into()),
    (Rule::Id, |c| distribution(c).id = "9".into()),
    (Rule::PackageCpe, |c| package(c).cpe.clear()),
    (Rule::PackageCpe, |c| source(c).cpe.clear()),
    (Rule::PackageCpe, |c| package(c).cpe = "cpe:/o:a".into()),
    (Rule::Source, |c| package(c).source = None),
    (Rule::Source, |c| source(c).source = Some(Box::default())),
    (Rule::Source, |c| source(c).name.clear()),
    (Rule::Source, |c| source(c).version = "1".into()),
    (Rule::Version, |c| package(c).version = "1.0".into()),
    (Rule::Name, |c| package(c).name.clear()),
    (Rule::Name, |c| package(c).raw_name = b"text".into()),
    (Rule::Name, |c| package(c).raw_name = b"a\xe9".into()),
    (Rule::Hint, |c| {
        package(c).repository_hint = "repoid=".into();
    }),
    (Rule::Hint, |c| {
        package(c).repository_hint = "repoid=@System".into();
    }),
    (Rule::Hint, |c| {
        package(c).repository_hint = "repoid=%61".into();
    }),
    (Rule::Hint, |c| package(c).repository_hint = "baseos".into()),
    (Rule::Layer, |c| environment(c).introduced_in.clear()),
    (Rule::Layer, |c| environment(c).introduced_in.truncate(70)),
    (Rule::Layer, |c| {
        environment(c).introduced_in = "sha256:".to_owned() + &"g".repeat(64);
    }),
    (Rule::Environment, |c| drop(c.environments.pop_first())),
    (Rule::Environment, |c| drop(c.packages.pop_first())),
    (Rule::Environment, |c| {
        environment(c).distribution_id = "9".into();
    }),
    (Rule::Environment, |c| {
        environment(c).repository_ids = vec!["99".into()];
    }),
    (Rule::Environment, |c| {
        environment(c).package_db = "elsewhere".into();
    }),
    (Rule::Environment, |c| {
        let list = c.environments.values_mut().next().unwrap();
        list.environments.push(Environment::default());
    }),
    (Rule::Environment, |c| {
        let again = environment(c).repository_ids[0].clone();
        environment(c).repository_ids.push(again);
    }),
    // The first package has no entry in the history, the second one of a mapped repository.
    (Rule::Origin, |c| environment(c).origin = 0),
    (Rule::Origin, |c| environment(c).repository_ids.clear()),
    (Rule::Origin, |c| drop(environment(c).repository_ids.pop())),
    (Rule::Origin, |c| second(c).origin = 1),
    (Rule::Origin, |c| second(c).origin = 2),
    (Rule::Origin, |c| second(c).repository_ids.clear()),
    (Rule::Origin, |c| {
        let all = c.repositories.keys().cloned().collect();
        second(c).repository_ids = all;
    }),
    (Rule::Distribution, |c| distribution(c).cpe.clear()),
    (Rule::Distribution, |c| {
        distribution(c).cpe = "cpe:/o:redhat:enterprise_linux:9".into();
    }),
    (Rule::Distribution, |c| {
        distribution(c).cpe = "cpe:2.3:o:a b:*:*:*:*:*:*:*:*:*".into();
    }),
    (Rule::Distribution, |c| {
        let id = "2".to_owned();
        let other = Distribution {
            id: id.clone(),
            cpe: WILDCARD.into(),
            ..Distribution::default()
        };
        c.distributions.insert(id, other);
    }),
    (Rule::Major, |c| {
        distribution(c).version = "9.4 (Plow)".into();
    }),
    (Rule::Major, |c| distribution(c).version_id = "9.4".into()),
    (Rule::Verbatim, |c| {
        distribution(c).version_verbatim = Some("9".into());
    }),
    (Rule::Verbatim, |c| {
        let cpe = distribution(c).cpe.clone();
        distribution(c).cpe_verbatim = Some(cpe);
    }),
    (Rule::Repository, |c| repository(c).cpe.clear()),
    (Rule::Repository, |c| repository(c).cpe = WILDCARD.into()),
    (Rule::Repository, |c| {
        repository(c).cpe = "cpe:/o:redhat:enterprise_linux:9".into();
    }),
    (Rule::Repository, |c| repository(c).name = "baseos".into()),
    (Rule::Repository, |c| repository(c).key.clear()),
    (Rule::Repository, |c| repository(c).uri.clear()),
    (Rule::Repository, |c| {
        repository(c).uri = "repoid=a b".into();
    }),
    (Rule::Unique, |c| {
        let id = "99".to_owned();
        let again = Repository {
            id: id.clone(),
            ..repository(c).clone()
        };
        c.repositories.insert(id, again);
    }),
    (Rule::Unmapped, |c| unmapped(c).cpe = WILDCARD.into()),
    (Rule::Unmapped, |c| {
        unmapped(c).key = "rhel-cpe-repository".into();
    }),
    (Rule::Unmapped, |c| unmapped(c).name.clear()),
    (Rule::Unmapped, |c| {
        let id = c.repositories.keys().next().unwrap().clone();
        c.unmapped.insert(id, Repository::default());
    }),
];

const BREAKS_OF_ALL: &[(Rule, BreakOfAll)] = &[
    (Rule::Finished, |report| report.success = false),
    (Rule::Finished, |report| report.state = "IndexError".into()),
    (Rule::Finished, |report| report.err = "no".into()),
    (Rule::Finished, |report| report.contents = None),
    (Rule::Hash, |report| report.hash_id = "sha256:".into()),
];

// The loss: an oracle that nods.
#[test]
fn every_rule_is_broken_once_and_the_oracle_refuses_it() {
    let root = guests::with(&["a-image", "b-dnf", "c-epel"]);
    let items = [
        item("b-dnf", "baseos", 1, 1),
        item("c-epel", "epel", 1, 1),
        item("gone", "appstream", 1, 1),
    ];
    guests::dnf4(root.path(), &items);
    let good = guests::sent(&guests::report(root.path(), Some(MAPPING)));
    check(&good, "the report before it is broken");
    let mut refused = BTreeSet::new();
    let mut expect = |rule, report: &IndexReport, number| {
        let broken = violations(report);
        let is_refused = broken.iter().any(|(of, _)| *of == rule);
        assert!(is_refused, "{rule:?}, number {number}: {broken:?}");
        refused.insert(rule);
    };
    for (number, (rule, spoil)) in BREAKS.iter().enumerate() {
        let mut report = good.clone();
        spoil(report.contents.as_mut().unwrap());
        expect(*rule, &report, number);
    }
    for (number, (rule, spoil)) in BREAKS_OF_ALL.iter().enumerate() {
        let mut report = good.clone();
        spoil(&mut report);
        expect(*rule, &report, number);
    }
    assert_eq!(refused.len(), 17, "a rule is never broken: {refused:?}");
    assert!(contents(root.path(), Some(MAPPING)).unmapped.len() == 1);
}

fn package(contents: &mut Contents) -> &mut Package {
    contents.packages.values_mut().next().unwrap()
}

fn source(contents: &mut Contents) -> &mut Package {
    package(contents).source.as_mut().unwrap()
}

fn distribution(contents: &mut Contents) -> &mut Distribution {
    contents.distributions.values_mut().next().unwrap()
}

fn repository(contents: &mut Contents) -> &mut Repository {
    contents.repositories.values_mut().next().unwrap()
}

fn unmapped(contents: &mut Contents) -> &mut Repository {
    contents.unmapped.values_mut().next().unwrap()
}

fn environment(contents: &mut Contents) -> &mut Environment {
    nth(contents, 0)
}

fn second(contents: &mut Contents) -> &mut Environment {
    nth(contents, 1)
}

fn nth(contents: &mut Contents, n: usize) -> &mut Environment {
    let list = contents.environments.values_mut().nth(n).unwrap();
    &mut list.environments[0]
}
