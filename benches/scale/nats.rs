//! Three real nats-servers in a cluster.

use afferent::clock;
use afferent::nats::{Message, NatsClient, NatsOptions};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const STREAM: &str = "REPORTS";

pub struct Cluster {
    dir: PathBuf,
    ports: Vec<u16>,
    servers: Vec<Child>,
}

impl Cluster {
    /// Each keeps its messages in a directory `STORE` below `dir/N`, which may be a file system of its own.
    pub fn start(dir: &Path, servers: usize) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let held: Vec<_> = (0..2 * servers).map(|_| free()).collect();
        let ports = held.iter().map(|it| it.local_addr().unwrap().port());
        let (ports, routes): (Vec<u16>, Vec<u16>) = {
            let all: Vec<u16> = ports.collect();
            (all[..servers].to_vec(), all[servers..].to_vec())
        };
        drop(held);
        let all_routes: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        for (n, (port, route)) in ports.iter().zip(&routes).enumerate() {
            let home = dir.join(n.to_string());
            fs::create_dir_all(home.join("store")).unwrap();
            let configuration = format!(
                "server_name: n{n}\nlisten: \"127.0.0.1:{port}\"\nlogfile: \"log\"\n\
                 jetstream {{ store_dir: \"store\" }}\n\
                 cluster {{ name: scale, listen: \"127.0.0.1:{route}\", routes: [{}] }}\n",
                all_routes.join(",")
            );
            fs::write(home.join("nats.conf"), configuration).unwrap();
        }
        let servers = (0..servers).map(|n| spawn(&dir.join(n.to_string())));
        Self {
            servers: servers.collect(),
            dir: dir.to_owned(),
            ports,
        }
    }

    /// The addresses, with commas between them.
    pub fn addresses(&self) -> String {
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let all: Vec<String> = self.ports.iter().map(address).collect();
        all.join(",")
    }

    /// Number of the server that leads the stream, once there is one.
    pub fn leader(&self) -> usize {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if let Some(n) = self.info().and_then(|info| {
                let name = info["cluster"]["leader"].as_str()?;
                name.strip_prefix('n')?.parse().ok()
            }) {
                return n;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("the stream has no leader");
    }

    /// What JetStream says of the stream.
    pub fn info(&self) -> Option<Value> {
        let options = NatsOptions {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(2),
            secret_file: None,
            ca_file: None,
        };
        let url = format!("nats://{}?stream={STREAM}", self.addresses());
        let client = NatsClient::new(url.parse().unwrap(), options);
        let message = Message {
            subject: &format!("$JS.API.STREAM.INFO.{STREAM}"),
            headers: &[],
            payload: b"{}",
        };
        let answer = client.request(&message, clock::now() + Duration::from_secs(5));
        let info: Value = serde_json::from_slice(&answer.ok()?).ok()?;
        info["config"].is_object().then_some(info)
    }

    /// Where a server keeps its messages.
    pub fn store(&self, n: usize) -> PathBuf {
        self.dir.join(n.to_string()).join("store")
    }

    /// SIGKILL.
    pub fn kill(&mut self, n: usize) {
        self.servers[n].kill().unwrap();
        self.servers[n].wait().unwrap();
    }

    /// After [`Cluster::kill`].
    pub fn again(&mut self, n: usize) {
        self.servers[n] = spawn(&self.dir.join(n.to_string()));
    }

    /// Sends a signal: STOP is as good as a partition, CONT its end.
    pub fn signal(&self, n: usize, signal: &str) {
        let pid = self.servers[n].id().to_string();
        let mut kill = Command::new("kill");
        let sent = kill.args([&format!("-{signal}"), &pid]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn spawn(home: &Path) -> Child {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/nats-server");
    let program = match unpacked.exists() {
        true => unpacked,
        false => PathBuf::from("nats-server"),
    };
    Command::new(program)
        .args(["-c", "nats.conf"])
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server: packaging/install-deps.sh nats")
}
