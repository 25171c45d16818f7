//! Many packages from one build.

use super::rpm_root::RpmRoot;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Package files; removed when dropped.
pub struct Bulk {
    dir: TempDir,
    pub files: Vec<PathBuf>,
}

/// Builds `count` packages `stem-1`, `stem-2`, ... of this version, each with some files.
pub fn build(stem: &str, version: &str, count: usize) -> Bulk {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = format!(
        "Name: {stem}\nVersion: {version}\nRelease: 1.el9\nSummary: many\nLicense: MIT\nBuildArch: noarch\n\
         %description\nmany\n%install\n"
    );
    for n in 1..=count {
        let place = format!("%{{buildroot}}/opt/{stem}-{n}");
        writeln!(
            spec,
            "mkdir -p {place}; touch {place}/a {place}/b {place}/c"
        )
        .unwrap();
    }
    for n in 1..=count {
        write!(
            spec,
            "%package -n {stem}-{n}\nSummary: one of many\n%description -n {stem}-{n}\n\
             A package that is there to be counted, with a description of an ordinary length.\n\
             %files -n {stem}-{n}\n/opt/{stem}-{n}\n"
        )
        .unwrap();
    }
    let file = dir.path().join("bulk.spec");
    fs::write(&file, spec).unwrap();
    let define = |name: &str, value: &Path| format!("{name} {}", value.display());
    let output = Command::new("rpmbuild")
        .args(["-bb", "--quiet"])
        .args(["--define", &define("_topdir", dir.path())])
        .args(["--define", &define("_dbpath", &dir.path().join("db"))])
        .args(["--define", "_build_id_links none"])
        .args(["--define", "_binary_payload w0.gzdio"])
        .arg(&file)
        .output()
        .expect("rpmbuild, see packaging/install-deps.sh");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let files = (1..=count)
        .map(|n| {
            dir.path()
                .join(format!("RPMS/noarch/{stem}-{n}-{version}-1.el9.noarch.rpm"))
        })
        .collect();
    Bulk { dir, files }
}

/// A root with `count` packages in it.
pub fn root_with(count: usize) -> RpmRoot {
    let root = RpmRoot::new();
    root.install(&build("base", "1", count).files);
    root
}
