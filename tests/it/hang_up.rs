//! SIGHUP at the worst time: before a service is ready, and while a mirror has no tables.

use crate::support::eventually;
use crate::support::program::{Program, status};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The socket at which systemd listens to its services.
struct Systemd {
    socket: UnixDatagram,
    name: String,
}

impl Systemd {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let timeout = Some(Duration::from_secs(60));
        socket.set_read_timeout(timeout).unwrap();
        Self {
            socket,
            name: path.display().to_string(),
        }
    }

    /// Fills its queue: whoever wants to tell it something waits.
    fn let_them_wait(&self) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender.send_to(b"FULL", &self.name).is_ok() {}
    }

    fn told(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("systemd is told");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    /// Waits until it is told something that begins like this.
    fn wait_for(&self, what: &str) {
        while !self.told().starts_with(what) {}
    }
}

fn hang_up(pid: u32) {
    let pid = pid.to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.unwrap().success());
}

/// Whether the process has a handler for SIGHUP.
fn catches_hang_up(pid: u32) -> Option<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught?.trim(), 16).ok()?;
    (caught & 1 != 0).then_some(())
}

// The loss: a service that is reloaded while it starts, and is gone.
#[test]
fn sighup_before_ready_is_answered_by_a_reload_in_all_three_modes() {
    for mode in ["serve", "sense", "mirror"] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (state, root) = (path("state"), path("root"));
        let systemd = Systemd::at(&dir.path().join("notify"));
        systemd.let_them_wait();
        let (listen, roster) = (format!("unix:{}", path("a")), path("roster.toml"));
        let (deliver, core) = (
            format!("file:{}", path("out")),
            format!("file:{}", path("core.json")),
        );
        fs::create_dir(&root).unwrap();
        fs::write(&roster, "vm = []\n").unwrap();
        fs::write(path("core.json"), "{}").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
        command.env("NOTIFY_SOCKET", &systemd.name);
        match mode {
            "serve" => command.args(["serve", "--root", &root, "--listen", &listen]),
            "sense" => command.args(["sense", "--roster", &roster, "--deliver", &deliver]),
            _ => command.args(["mirror", "run", "--core", &core]),
        };
        command.args(["--state-dir", &state]);
        let log = dir.path().join("log");
        let mut program = Program::start_logged(command, &log);
        eventually("SIGHUP is caught", || catches_hang_up(program.pid()));
        hang_up(program.pid());
        // Not one of the messages that fill the queue: so it was not ready before.
        systemd.wait_for("READY=1");
        systemd.wait_for("RELOADING=1");
        systemd.wait_for("READY=1");
        let said = fs::read_to_string(&log).unwrap();
        assert!(said.contains("configuration read again"), "{mode}: {said}");
        assert!(program.runs(), "{mode}");
        assert!(program.terminate().success(), "{mode}");
    }
}

// The loss: `systemctl reload` ends the mirror that waits for its tables.
#[test]
fn a_mirror_without_tables_goes_on_after_sighup_and_reads_its_configuration_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (state, config) = (dir.path().join("state"), path("mirror.toml"));
    for name in ["a.json", "b.json"] {
        fs::write(path(name), "{}").unwrap();
    }
    let configure = |core: &str, more: &str| {
        let core = format!("core = 'file:{}'\n{more}\n", path(core));
        fs::write(&config, core).unwrap();
    };
    configure("a.json", "");
    let mirror = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
        command.args(["mirror", "run", "--config", &config, "--state-dir"]);
        command.arg(&state).args(more);
        command
    };
    assert!(mirror(&["--once"]).status().unwrap().success());
    let (database, away) = (state.join("mirror.redb"), dir.path().join("away"));
    fs::rename(&database, &away).unwrap();
    let systemd = Systemd::at(&dir.path().join("notify"));
    let log = dir.path().join("log");
    let mut command = mirror(&[]);
    command.env("NOTIFY_SOCKET", &systemd.name);
    let mut service = Program::start_logged(command, &log);
    systemd.wait_for("READY=1");
    let port = crate::support::program::free_port();
    configure(
        "b.json",
        &format!("metrics = {port}\ndamaged_max_count = 7"),
    );
    hang_up(service.pid());
    systemd.wait_for("RELOADING=1");
    systemd.wait_for("READY=1");
    assert!(service.runs());
    fs::rename(&away, &database).unwrap();
    eventually("it mirrors from where it was told to meanwhile", || {
        let (answer, _) = status(&state, &[]);
        let is_well = answer["state"] == "ok";
        (is_well && answer["core"].as_str()?.ends_with("b.json")).then_some(())
    });
    let said = fs::read_to_string(&log).unwrap();
    for key in ["key=\"metrics\"", "key=\"damaged_*\""] {
        assert!(said.contains(key), "needs a restart: {said}");
    }
    assert!(service.terminate().success());
}
