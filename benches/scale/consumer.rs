//! The example of a consumer, `packaging/examples/newest_reports.py`, and its table.

use rusqlite::{Connection, OpenFlags};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the table has of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub generation: u32,
    /// Version of the package that is another one in each generation.
    pub changing: String,
    /// Milliseconds since 1970.
    pub stored_at: i64,
}

pub struct Consumer {
    servers: String,
    db: PathBuf,
    child: Child,
}

impl Consumer {
    pub fn start(servers: &str, db: &Path) -> Self {
        let child = spawn(servers, db);
        Self {
            servers: servers.to_owned(),
            db: db.to_owned(),
            child,
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn again(&mut self) {
        self.child = spawn(&self.servers, &self.db);
    }

    /// The table, by number of the guest; empty while there is none.
    pub fn rows(&self) -> HashMap<u32, Row> {
        self.read().unwrap_or_default()
    }

    fn read(&self) -> rusqlite::Result<HashMap<u32, Row>> {
        let db = Connection::open_with_flags(&self.db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut select = db.prepare(
            "SELECT vm, generation, stored_at, (SELECT value ->> 'version' FROM json_each(report, '$.packages')
                WHERE value ->> 'name' = 'changing') FROM guests",
        )?;
        let rows = select.query_map([], |row| {
            let vm: String = row.get(0)?;
            let number = vm.trim_start_matches("g-").parse().unwrap();
            let row = Row {
                generation: row.get(1)?,
                stored_at: row.get(2)?,
                changing: row.get(3)?,
            };
            Ok((number, row))
        })?;
        rows.collect()
    }
}

impl Drop for Consumer {
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

fn spawn(servers: &str, db: &Path) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let servers: Vec<String> = servers
        .split(',')
        .map(|at| format!("nats://{at}"))
        .collect();
    Command::new(python().expect("python with nats-py: `make scale`"))
        .arg(root.join("packaging/examples/newest_reports.py"))
        .args(["--server", &servers.join(","), "--db"])
        .arg(db)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}
