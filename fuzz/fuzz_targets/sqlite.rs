//! A whole sqlite file of any content: the headers, and every row of the tables that dnf keeps.
#![no_main]

mod common;

use afferent_fuzz::rpmdb::Backend;
use afferent_fuzz::rpmdb::sqlite::{self, Beside};
use libfuzzer_sys::fuzz_target;
use std::ops::ControlFlow;

fuzz_target!(|data: &[u8]| {
    common::read_all(Backend::Sqlite, data, Beside::Nothing);
    let Ok(mut database) = sqlite::SqliteDatabase::open(data, Beside::Nothing) else {
        return;
    };
    for name in ["Packages", "rpm", "trans_item", "repo", "sqlite_sequence"] {
        if let Some(table) = database.table(name).cloned() {
            let columns = ["hnum", "blob", "id", "name", "item_id", "repo_id", "seq"];
            let _ = database.rows(&table, &columns, &mut |_, _| ControlFlow::Continue(()));
        }
    }
});
