//! The mapping of repositories to CPEs, of any content.
#![no_main]

use afferent_fuzz::report::cpe::{Cpe, WILDCARD};
use afferent_fuzz::report::{Report, Repository};
use afferent_fuzz::serve::repo_cpe::{Content, RepoCpe};
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Of this process: others fuzz at the same time.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    };
    directory.join(format!("afferent-fuzz-{}.json", std::process::id()))
});

fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).expect("room for the mapping");
    let mut mapping = RepoCpe::default();
    let before = Report {
        repositories: vec![repository("a"), repository("rhel-9-for-x86_64-baseos-rpms")],
        ..Report::default()
    };
    let mut report = before.clone();
    let history = ["b".to_owned()];
    let content = Content::File(&FILE);
    let Ok((hash, rejected)) = mapping.apply(&mut report, &history, content) else {
        return assert_eq!(report, before);
    };
    for repository in report.repositories.iter().filter(|r| !r.cpe.is_empty()) {
        let cpe: Cpe = repository.cpe.parse().expect("a CPE");
        assert_ne!(cpe.as_str(), WILDCARD);
        let known = ["a", "b", "rhel-9-for-x86_64-baseos-rpms"];
        assert!(known.contains(&repository.id.as_str()));
    }
    // A repository is lost to no mapping, and what is left out is told of once.
    assert!(report.repositories.iter().any(|r| r.id == "a"));
    let mut again = before.clone();
    let told = mapping.apply(&mut again, &history, content).ok();
    assert_eq!(told, Some((hash, Vec::new())));
    assert_eq!(again, report);
    let mut other = RepoCpe::default();
    assert_eq!(
        other.apply(&mut before.clone(), &history, content).ok(),
        Some((hash, rejected))
    );
});

fn repository(id: &str) -> Repository {
    Repository {
        id: id.into(),
        ..Repository::default()
    }
}
