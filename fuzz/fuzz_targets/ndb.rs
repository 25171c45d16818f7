//! A whole ndb file of any content.
#![no_main]

mod common;

use afferent_fuzz::rpmdb::Backend;
use afferent_fuzz::rpmdb::sqlite::Beside;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| common::read_all(Backend::Ndb, data, Beside::Nothing));
