//! Reads everything that a scan would.

use afferent_fuzz::rpmdb::sqlite::Beside;
use afferent_fuzz::rpmdb::{Backend, Checks, Database, Scratch, read};
use std::ops::ControlFlow;

pub fn read_all(backend: Backend, main: &[u8], beside: Beside<&[u8]>) {
    let Ok(mut database) = Database::open(backend, main, beside) else {
        return;
    };
    let _ = database.last_number();
    let mut scratch = Scratch::default();
    let _ = database.headers(Checks::Make, &mut |item| {
        if let Ok(blob) = item.blob {
            let _ = read(blob, item.number, &mut scratch);
        }
        ControlFlow::Continue(())
    });
}
