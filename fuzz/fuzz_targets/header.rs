//! One header blob of any content.
#![no_main]

use afferent_fuzz::rpmdb::{Scratch, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut blob = data;
    let _ = read(&mut blob, 1, &mut Scratch::default());
});
