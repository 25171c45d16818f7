//! `afferent status --bundle FILE`: what support needs to see of this machine's services, in one tar file.
//!
//! ```text
//! afferent-support/contents.txt              what is missing, and why
//!                  versions.txt              this program, the kernel, os-release
//!                  files.txt                 names and sizes in the state directories
//!                  log.txt                   last lines of the journal of the three units
//!                  SERVICE/status.json       as `afferent status --json`
//!                  SERVICE/configuration.json
//!                  SERVICE/metrics.txt
//! ```
//!
//! Every text passes [`Mask`] in [`Bundle::add`], the only way into the file. A part that cannot be had is
//! named in `contents.txt` and does not keep the others out.

mod mask;

use super::{control, support};
use crate::clock;
use mask::Mask;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Directory of everything in the tar file.
const TOP: &str = "afferent-support";

/// Where the units of the package keep their state, whether they run or not.
const USUAL_STATE: &str = "/var/lib/afferent";

/// Longest file of secrets that is read, in bytes.
const LONGEST_SECRET: u64 = 64 << 10;

/// Most of the journal, in lines and in bytes.
const LOG_LINES: &str = "1000";
const LOG_BYTES: u64 = 8 << 20;

/// Most files that are listed.
const MOST_FILES: usize = 1000;

/// What a bundle is made of.
#[derive(Clone, Copy)]
pub struct BundleSources<'a> {
    /// Control sockets; where nobody listens, there is no service.
    pub sockets: &'a [PathBuf],
    /// Directories whose files are listed, beside those that services name.
    pub state_dirs: &'a [PathBuf],
    /// Name and version of this program.
    pub program: &'a str,
    /// Makes a path of what a configuration calls one.
    pub path: fn(&str) -> Result<PathBuf, String>,
}

/// Gathers everything, writes it to `file`, readable for its owner alone, and returns the number of services.
///
/// # Errors
/// The file cannot be written; what was there before stays.
pub fn write(file: &Path, sources: BundleSources<'_>) -> io::Result<usize> {
    let bundle = Bundle::gather(sources);
    let services = bundle.services;
    bundle.tar().and_then(|tar| replace(file, &tar))?;
    Ok(services)
}

/// The files of the tar, each masked already.
#[derive(Default)]
struct Bundle {
    files: Vec<(String, String)>,
    missing: Vec<String>,
    services: usize,
    mask: Mask,
}

/// What a service answered.
struct Service {
    name: String,
    status: Value,
    support: Value,
}

impl Bundle {
    fn gather(sources: BundleSources<'_>) -> Self {
        let mut bundle = Self::default();
        let services: Vec<Service> = sources
            .sockets
            .iter()
            .filter_map(|s| bundle.ask(s))
            .collect();
        if services.is_empty() {
            bundle.missing("status: no service answers".into());
        }
        // First all secrets, then the first text.
        for service in &services {
            bundle.hide(service, sources.path);
        }
        let mut directories = BTreeSet::from([PathBuf::from(USUAL_STATE)]);
        directories.extend(sources.state_dirs.iter().cloned());
        let mut names = BTreeSet::new();
        for service in services {
            let state_dir = service.support["state_dir"].as_str();
            directories.extend(state_dir.map(PathBuf::from));
            bundle.service(service, &mut names);
        }
        bundle.add("versions.txt", &versions(sources.program));
        bundle.add("files.txt", &listing(&directories));
        bundle.log();
        let contents = match bundle.missing.as_slice() {
            [] => "Nothing is missing.\n".to_owned(),
            missing => format!("Missing:\n{}\n", missing.join("\n")),
        };
        bundle.add("contents.txt", &contents);
        bundle
    }

    /// Asks one service; a socket at which nobody listens is no service.
    fn ask(&mut self, socket: &Path) -> Option<Service> {
        let status = match control::ask(socket, "status") {
            Ok(status) => status,
            Err(error) if control::is_not_running(&error) => return None,
            Err(error) => {
                self.missing(format!("{}: {error}", socket.display()));
                return None;
            }
        };
        let support = control::ask(socket, support::WORD).unwrap_or_else(|error| {
            self.missing(format!("{}: {error}", socket.display()));
            Value::Null
        });
        let name = status["service"].as_str().unwrap_or("service");
        let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase());
        Some(Service {
            name: if is_plain { name } else { "service" }.to_owned(),
            status,
            support,
        })
    }

    /// Hides what the configuration of this service names: its files of secrets, and its addresses.
    fn hide(&mut self, service: &Service, path: fn(&str) -> Result<PathBuf, String>) {
        let settings = service.support["configuration"].as_array();
        for setting in settings.into_iter().flatten() {
            let key = setting["key"].as_str().unwrap_or_default();
            let values = setting["values"].as_array().into_iter().flatten();
            for value in values.filter_map(Value::as_str).map(without_name) {
                if key.ends_with("token_file") {
                    self.hide_file(service, &path(value).unwrap_or_default());
                } else {
                    self.mask.hide_address(value);
                }
            }
        }
    }

    /// Hides the content of a file as the service sees it, whose mounts may be other ones, and as it is here.
    fn hide_file(&mut self, service: &Service, name: &Path) {
        let directory = service.support["directory"].as_str().unwrap_or_default();
        let here = Path::new(directory).join(name);
        let there = service.support["pid"].as_u64().and_then(|pid| {
            let below = here.strip_prefix("/").ok()?;
            Some(
                Path::new("/proc")
                    .join(pid.to_string())
                    .join("root")
                    .join(below),
            )
        });
        let mut failed = None;
        let mut is_read = false;
        for path in there.iter().chain([&here]) {
            match secret(path) {
                Ok(content) => {
                    self.mask.hide_content(&content);
                    is_read = true;
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed.filter(|_| !is_read) {
            self.missing(format!(
                "{}: {error}: what it holds is masked only where secrets usually stand",
                here.display()
            ));
        }
    }

    fn service(&mut self, service: Service, names: &mut BTreeSet<String>) {
        let mut name = service.name.clone();
        let mut count = 1;
        while !names.insert(name.clone()) {
            count += 1;
            name = format!("{}-{count}", service.name);
        }
        self.services += 1;
        self.add_json(&format!("{name}/status.json"), service.status);
        match service.support.get("configuration") {
            Some(Value::Null) | None => {
                self.missing(format!(
                    "{name}: the service does not tell its configuration"
                ));
            }
            Some(configuration) => {
                self.add_json(&format!("{name}/configuration.json"), configuration.clone());
            }
        }
        match service.support["metrics"].as_str() {
            Some(page) => self.add(&format!("{name}/metrics.txt"), page),
            None => self.missing(format!("{name}: the service has no metrics")),
        }
    }

    fn log(&mut self) {
        match journal() {
            Ok(log) => self.add("log.txt", &log),
            Err(error) => self.missing(format!("log.txt: journalctl: {error}")),
        }
    }

    fn missing(&mut self, what: String) {
        self.missing.push(what);
    }

    fn add_json(&mut self, name: &str, value: Value) {
        // Masked as values, so that the text stays JSON.
        let text = format!("{:#}\n", self.mask.json(value));
        self.files.push((format!("{TOP}/{name}"), text));
    }

    fn add(&mut self, name: &str, text: &str) {
        self.files
            .push((format!("{TOP}/{name}"), self.mask.text(text)));
    }

    fn tar(self) -> io::Result<Vec<u8>> {
        let now = clock::wall_now().unix_ms() / 1000;
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in self.files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o600);
            header.set_mtime(now);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes())?;
        }
        tar.into_inner()
    }
}

/// A value without the name of the sink that may stand before it: `siem=FILE`.
fn without_name(value: &str) -> &str {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match value.split_once('=') {
        Some((name, rest)) if !name.is_empty() && name.bytes().all(is_name) => rest,
        _ => value,
    }
}

/// What a file of secrets holds, as far as it is read.
fn secret(path: &Path) -> io::Result<String> {
    let mut content = Vec::new();
    let file = OpenOptions::new()
        .read(true)
        // A FIFO would block.
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    file.take(LONGEST_SECRET).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

fn versions(program: &str) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_else(|error| format!("{path}: {error}\n"));
    format!(
        "{program}\n{}\n{}",
        read("/proc/version"),
        read("/etc/os-release")
    )
}

/// Size in bytes and name of each file in these directories and in those directly below them.
fn listing(directories: &BTreeSet<PathBuf>) -> String {
    let mut lines = Vec::new();
    for directory in directories {
        match entries(directory) {
            Ok(files) => lines.extend(files),
            Err(error) => lines.push(format!("{}: {error}", directory.display())),
        }
    }
    lines.truncate(MOST_FILES);
    lines.join("\n") + "\n"
}

fn entries(directory: &Path) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut paths: Vec<_> = fs::read_dir(directory)?
        .flatten()
        .map(|e| e.path())
        .collect();
    paths.sort();
    for path in paths.into_iter().take(MOST_FILES) {
        let size = |path: &Path| fs::symlink_metadata(path).map_or(0, |meta| meta.len());
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
        if !is_directory {
            lines.push(format!("{:>12} {}", size(&path), path.display()));
            continue;
        }
        let below = fs::read_dir(&path).into_iter().flatten().flatten();
        let mut below: Vec<_> = below.take(MOST_FILES).map(|e| e.path()).collect();
        below.sort();
        lines.extend(
            below
                .iter()
                .map(|p| format!("{:>12} {}", size(p), p.display())),
        );
    }
    Ok(lines)
}

/// The last lines that the three units wrote.
fn journal() -> io::Result<String> {
    let mut child = Command::new("journalctl")
        .args(["--no-pager", "-o", "short-iso", "-n", LOG_LINES])
        .args([
            "-u",
            "afferent-serve",
            "-u",
            "afferent-sense",
            "-u",
            "afferent-mirror",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut log = Vec::new();
    let out = child.stdout.take().map(|out| out.take(LOG_BYTES));
    let read = out.map_or(Ok(0), |mut out| out.read_to_end(&mut log));
    // One that writes on after the bound would not end.
    let is_cut = log.len() as u64 >= LOG_BYTES;
    if is_cut || read.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    read?;
    match status.success() || is_cut {
        true => Ok(String::from_utf8_lossy(&log).into_owned()),
        false => Err(io::Error::other(format!("{status}"))),
    }
}

/// All of it or nothing, readable for the owner alone.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = out.write_all(bytes).and_then(|()| out.sync_all());
    let renamed = written.and_then(|()| fs::rename(&new, file));
    if renamed.is_err() {
        let _ = fs::remove_file(&new);
    }
    renamed
}
