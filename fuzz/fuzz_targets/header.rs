//! One header blob of any content.
#![no_main]

use afferent_fuzz::rpmdb::{Scratch, details, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut blob, mut scratch) = (data, Scratch::default());
    let _ = read(&mut blob, 1, &mut scratch);
    let _ = details(&mut blob, 1, &mut scratch);
});
