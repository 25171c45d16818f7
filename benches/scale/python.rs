//! The example of a consumer, `packaging/examples/newest_reports.py`, and its table.

use super::table::{Row, Table, kill, number};
use rusqlite::{Connection, OpenFlags};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct PythonConsumer {
    servers: String,
    db: PathBuf,
    durable: &'static str,
    child: Child,
}

impl PythonConsumer {
    /// Begins with the first message of the stream, where none of this durable name was there before.
    pub fn start(servers: &str, db: &Path, durable: &'static str) -> Self {
        Self {
            servers: servers.to_owned(),
            db: db.to_owned(),
            durable,
            child: spawn(servers, db, durable),
        }
    }

    pub fn kill(&mut self) {
        kill(&mut self.child);
    }

    pub fn again(&mut self) {
        self.child = spawn(&self.servers, &self.db, self.durable);
    }

    /// When the row of each guest was stored, in milliseconds since 1970.
    pub fn stored_at(&self) -> HashMap<u32, i64> {
        self.select("SELECT vm, stored_at FROM guests", |row| row.get(1))
    }

    /// The sensors of whose documents the rows of these guests are.
    pub fn sensors(&self, guests: &std::ops::Range<u32>) -> HashSet<String> {
        let all: HashMap<u32, String> =
            self.select("SELECT vm, meta ->> 'sensor' FROM guests", |row| row.get(1));
        let of_these = all.into_iter().filter(|(n, _)| guests.contains(n));
        of_these.map(|(_, sensor)| sensor).collect()
    }

    fn select<T>(
        &self,
        query: &str,
        value: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> HashMap<u32, T> {
        let read = || -> rusqlite::Result<HashMap<u32, T>> {
            let db = Connection::open_with_flags(&self.db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let mut select = db.prepare(query)?;
            let rows = select.query_map([], |row| {
                let vm: String = row.get(0)?;
                Ok((number(&vm).unwrap(), value(row)?))
            })?;
            rows.collect()
        };
        read().unwrap_or_default()
    }
}

impl Table for PythonConsumer {
    const NAME: &'static str = "Python";

    fn generations(&self) -> HashMap<u32, u32> {
        self.select("SELECT vm, generation FROM guests", |row| row.get(1))
    }

    fn rows(&self) -> HashMap<u32, Row> {
        let query = "SELECT vm, meta ->> 'epoch', generation, json_array_length(report, '$.packages'),
            (SELECT value ->> 'version' FROM json_each(report, '$.packages') WHERE value ->> 'name' = 'changing')
            FROM guests";
        self.select(query, |row| {
            Ok(Row {
                epoch: row.get(1)?,
                generation: row.get(2)?,
                packages: row.get(3)?,
                changing: row.get(4)?,
            })
        })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for PythonConsumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A python with nats-py, if there is one.
pub fn python() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/nats-py/bin/python");
    let python = std::env::var_os("SCALE_PYTHON").map_or(made, PathBuf::from);
    let mut import = Command::new(&python);
    let has_it = import.args(["-c", "import nats"]).status();
    has_it.is_ok_and(|it| it.success()).then_some(python)
}

fn spawn(servers: &str, db: &Path, durable: &str) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let servers: Vec<String> = servers
        .split(',')
        .map(|at| format!("nats://{at}"))
        .collect();
    Command::new(python().expect("python with nats-py: `make scale`"))
        .arg(root.join("packaging/examples/newest_reports.py"))
        .args(["--server", &servers.join(",")])
        .args(["--durable", durable, "--db"])
        .arg(db)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}
