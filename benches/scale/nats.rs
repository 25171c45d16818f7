//! Three real nats-servers in a cluster.

use super::process::rss_kib;
use super::table::kill;
use afferent::clock;
use afferent::nats::{Message, NatsClient, NatsOptions};
use serde_json::Value;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const STREAM: &str = "REPORTS";

/// What fills a disk.
const BALLAST: &str = "ballast";

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
        self.leader_but(None)
    }

    /// Number of the server that leads the stream, once one does that is not this one.
    pub fn leader_but(&self, not: Option<usize>) -> usize {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let info = self.info().unwrap_or_default();
            let name = info["cluster"]["leader"].as_str();
            let leads = name.and_then(|name| name.strip_prefix('n')?.parse().ok());
            match leads {
                Some(n) if not != Some(n) => return n,
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
        }
        panic!("the stream has no leader but {not:?}");
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

    /// Bytes of all messages that a server keeps, [`BALLAST`] left out.
    pub fn stored(&self, n: usize) -> u64 {
        let (mut sum, mut places) = (0, vec![self.store(n)]);
        while let Some(place) = places.pop() {
            // What the server has removed meanwhile counts as nothing.
            for entry in fs::read_dir(place).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(it) if it.is_dir() => places.push(entry.path()),
                    Ok(it) if entry.file_name() != BALLAST => sum += it.len(),
                    _ => {}
                }
            }
        }
        sum
    }

    /// Writes [`BALLAST`] beside the messages of a server until the disk takes no more.
    pub fn fill(&self, n: usize) {
        let path = self.store(n).join(BALLAST);
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(path);
        let ballast = ballast.as_mut().unwrap();
        for part in [1 << 20, 4096] {
            let zeros = vec![0; part];
            let full = loop {
                if let Err(error) = ballast.write_all(&zeros) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    /// The end of [`Cluster::fill`].
    pub fn make_room(&self, n: usize) {
        // Where nothing was filled there is nothing to remove.
        let _ = fs::remove_file(self.store(n).join(BALLAST));
    }

    /// Resident memory of each server.
    pub fn rss_mib(&self) -> Vec<u64> {
        let servers = self.servers.iter();
        servers.map(|it| rss_kib(it.id()) / 1024).collect()
    }

    pub fn kill(&mut self, n: usize) {
        kill(&mut self.servers[n]);
    }

    /// After [`Cluster::kill`].
    pub fn again(&mut self, n: usize) {
        self.servers[n] = spawn(&self.dir.join(n.to_string()));
    }

    /// The process of a server.
    pub fn pid(&self, n: usize) -> u32 {
        self.servers[n].id()
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
