//! A write-ahead log or rollback journal of any content beside a sound database.
//!
//! Checksums would keep the fuzzer out, so an input is also tried with them made right: pages of
//! any content then reach the reader of the tables through the log.
#![no_main]

mod common;

use afferent_fuzz::rpmdb::Backend;
use afferent_fuzz::rpmdb::sqlite::Beside;
use libfuzzer_sys::fuzz_target;

const MAIN: &[u8] = include_bytes!("../seeds/small.sqlite");
const PAGE: usize = 512;
const FRAME: usize = 24 + PAGE;

fuzz_target!(|data: &[u8]| {
    common::read_all(Backend::Sqlite, MAIN, Beside::Log(data));
    common::read_all(Backend::Sqlite, MAIN, Beside::Log(&signed(data)));
    common::read_all(Backend::Sqlite, MAIN, Beside::HotJournal(data));
});

/// The input with a sound header in front and the salts and sums of all its whole frames right.
fn signed(data: &[u8]) -> Vec<u8> {
    let mut log = vec![0; 32];
    log[..4].copy_from_slice(&0x377f_0682_u32.to_be_bytes());
    log[4..8].copy_from_slice(&3_007_000_u32.to_be_bytes());
    log[8..12].copy_from_slice(&(PAGE as u32).to_be_bytes());
    let mut sum = [0, 0];
    add(&mut sum, &log[..24]);
    log[24..28].copy_from_slice(&sum[0].to_be_bytes());
    log[28..].copy_from_slice(&sum[1].to_be_bytes());
    for frame in data.chunks_exact(FRAME) {
        let start = log.len();
        log.extend_from_slice(frame);
        let frame = &mut log[start..];
        frame[8..16].fill(0);
        add(&mut sum, &frame[..8]);
        add(&mut sum, &frame[24..]);
        frame[16..20].copy_from_slice(&sum[0].to_be_bytes());
        frame[20..24].copy_from_slice(&sum[1].to_be_bytes());
    }
    log
}

fn add(sum: &mut [u32; 2], bytes: &[u8]) {
    for pair in bytes.chunks_exact(8) {
        let word = |at: usize| u32::from_le_bytes(pair[at..at + 4].try_into().unwrap());
        sum[0] = sum[0].wrapping_add(word(0)).wrapping_add(sum[1]);
        sum[1] = sum[1].wrapping_add(word(4)).wrapping_add(sum[0]);
    }
}
