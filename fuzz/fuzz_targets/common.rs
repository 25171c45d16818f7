//! Reads everything that a scan would.

use afferent_fuzz::rpmdb::sqlite::Beside;
use afferent_fuzz::rpmdb::{Backend, Checks, Database, Scratch, read};
use std::ops::ControlFlow;

pub fn read_all(backend: Backend, main: &[u8], beside: Beside<&[u8]>) {
    let Ok(mut database) = Database::open(backend, main, beside) else {
        return;
    };
    let _ = database.last_number();
    let listed = database.listing().ok().flatten().unwrap_or_default();
    let mut scratch = Scratch::default();
    let _ = database.headers(Checks::Make, &mut |item| {
        if let Ok(blob) = item.blob {
            let _ = read(blob, item.number, &mut scratch);
        }
        ControlFlow::Continue(())
    });
    // The blob whole, then from its middle: what a chain gives does not depend on the way there.
    let numbers: Vec<u32> = listed.iter().map(|listed| listed.number).take(20).collect();
    let _ = database.some_headers(&numbers, &mut |item| {
        if let Ok(blob) = item.blob {
            let half = blob.length() / 2;
            let later = blob.chunk(half).map(<[u8]>::to_vec);
            blob.announce(blob.length());
            let _ = blob.chunk(0);
            if let (Ok(later), Ok(again)) = (later, blob.chunk(half)) {
                let both = later.len().min(again.len());
                assert_eq!(later[..both], again[..both]);
            }
        }
        ControlFlow::Continue(())
    });
}
