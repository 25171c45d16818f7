//! A scratch root with an rpm database that the real `rpm` writes.
//!
//! Nothing of the machine's own rpm configuration or database is touched: every command names its
//! `--dbpath`, and packages are installed with `--justdb`. `rpm` and `rpmbuild` must be on PATH.

use afferent::report::escape::escape;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// What a package to build says of itself; `..Spec::default()` for the rest.
pub struct Spec<'a> {
    pub name: &'a str,
    pub epoch: Option<u32>,
    pub version: &'a str,
    pub release: &'a str,
    pub arch: &'a str,
    pub modularity_label: Option<&'a str>,
    /// Shell text that runs inside the transaction, before the package is added.
    pub pre: Option<&'a str>,
    /// Files it owns; none of them is ever written.
    pub files: usize,
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self {
            name: "sample",
            epoch: None,
            version: "1",
            release: "1",
            arch: "noarch",
            modularity_label: None,
            pre: None,
            files: 0,
        }
    }
}

/// A root with `var/lib/rpm` in it and an os-release; removed when dropped.
pub struct RpmRoot {
    dir: TempDir,
}

impl RpmRoot {
    /// An initialized, empty sqlite database.
    pub fn new() -> Self {
        let this = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(this.dbpath()).unwrap();
        fs::create_dir_all(this.path().join("etc")).unwrap();
        let os_release = "NAME=\"Red Hat Enterprise Linux\"\nID=\"rhel\"\nVERSION_ID=\"9.4\"\n";
        fs::write(this.path().join("etc/os-release"), os_release).unwrap();
        this.rpmdb(["--initdb"]);
        this
    }

    /// The root, for `--root`.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the database.
    pub fn dbpath(&self) -> PathBuf {
        self.path().join("var/lib/rpm")
    }

    /// Builds a package (about 0.1 s) and gives its file.
    pub fn build(&self, spec: &Spec<'_>) -> PathBuf {
        let top = self.path().join("rpmbuild");
        fs::create_dir_all(&top).unwrap();
        let file = top.join(format!(
            "{}-{}-{}.spec",
            spec.name, spec.version, spec.release
        ));
        fs::write(&file, spec_file(spec)).unwrap();
        let mut command = Command::new("rpmbuild");
        command
            .args(["-bb", "--quiet", "--target", spec.arch])
            .args(["--define", &format!("_topdir {}", top.display())])
            .args(["--define", &format!("_dbpath {}/db", top.display())])
            .args(["--define", "_build_id_links none"])
            .arg(&file);
        run(&mut command);
        top.join(format!(
            "RPMS/{a}/{}-{}-{}.{a}.rpm",
            spec.name,
            spec.version,
            spec.release,
            a = spec.arch
        ))
    }

    /// Builds and installs one package.
    pub fn add(&self, spec: &Spec<'_>) {
        self.install(&[self.build(spec)]);
    }

    /// Installs package files in one transaction.
    pub fn install<P: AsRef<OsStr>>(&self, files: &[P]) {
        run(self.rpm().args(TRANSACTION).arg("-i").args(files));
    }

    /// Upgrades to package files in one transaction.
    pub fn upgrade<P: AsRef<OsStr>>(&self, files: &[P]) {
        run(self
            .rpm()
            .args(TRANSACTION)
            .args(["-U", "--oldpackage"])
            .args(files));
    }

    /// Erases packages by name in one transaction.
    pub fn erase<P: AsRef<OsStr>>(&self, names: &[P]) {
        run(self
            .rpm()
            .args(["-e", "--justdb", "--nodeps", "--allmatches"])
            .args(names));
    }

    /// Starts an installation that goes on beside the test; wait for the child.
    ///
    /// Without `--justdb`, which would leave out the scripts: packages must own no files.
    pub fn start_install<P: AsRef<OsStr>>(&self, files: &[P]) -> Child {
        self.rpm()
            .args(&TRANSACTION[1..])
            .arg("-i")
            .args(files)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// `rpm --dbpath ..`, ready for more arguments.
    pub fn rpm(&self) -> Command {
        let mut command = Command::new("rpm");
        command.arg("--dbpath").arg(self.dbpath());
        command
    }

    /// Runs `rpmdb --dbpath .. args`.
    pub fn rpmdb<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        run(Command::new("rpmdb")
            .arg("--dbpath")
            .arg(self.dbpath())
            .args(args))
    }

    /// What `rpm -qa` lists, in the form of `afferent scan --format tsv`.
    pub fn rpm_qa(&self) -> String {
        rpm_qa(&self.dbpath())
    }
}

const TRANSACTION: [&str; 5] = [
    "--justdb",
    "--nodeps",
    "--nosignature",
    "--ignorearch",
    "--ignoreos",
];

/// Columns of `afferent scan --format tsv`.
pub const QUERY: &str = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}\\t%{RELEASE}\\t%{ARCH}\\t%{SOURCERPM}\\t%{MODULARITYLABEL}\\n";

/// What `rpm -qa` lists for a database directory: sorted bytewise, without `gpg-pubkey`, as
/// [`escape`](afferent::report::escape) makes its bytes text.
pub fn rpm_qa(dbpath: &Path) -> String {
    let output = run(Command::new("rpm")
        .arg("--dbpath")
        .arg(dbpath)
        .args(["-qa", "--qf", QUERY]));
    sorted(&output.stdout)
}

/// The lines of a package list as `afferent` writes them; two lists are equal only byte for byte.
pub fn sorted(list: &[u8]) -> String {
    let mut lines: Vec<&[u8]> = list
        .split_inclusive(|b| *b == b'\n')
        .filter(|line| !line.starts_with(b"gpg-pubkey\t"))
        .collect();
    lines.sort_unstable();
    escape(&lines.concat()).into_owned()
}

fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; install the package rpm"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn spec_file(spec: &Spec<'_>) -> String {
    let mut text = format!(
        "Name: {}\nVersion: {}\nRelease: {}\nSummary: s\nLicense: MIT\n",
        spec.name, spec.version, spec.release
    );
    if let Some(epoch) = spec.epoch {
        text += &format!("Epoch: {epoch}\n");
    }
    if let Some(label) = spec.modularity_label {
        text += &format!("ModularityLabel: {label}\n");
    }
    text += "%description\nd\n";
    if spec.files > 0 {
        text += "%install\nmkdir -p %{buildroot}/opt/%{name}\n";
        text += &format!(
            "for i in $(seq {}); do : > %{{buildroot}}/opt/%{{name}}/$i; done\n",
            spec.files
        );
    }
    if let Some(pre) = spec.pre {
        text += &format!("%pre\n{pre}\n");
    }
    text += "%files\n";
    if spec.files > 0 {
        text += "/opt/%{name}\n";
    }
    text
}
