//! What a NATS server sends, of any content: one operation after the other.
#![no_main]

use afferent_fuzz::nats::protocol::{DecodedOperation, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(DecodedOperation::Operation(_, len)) = decode(rest) {
        assert!(len > 0);
        rest = &rest[len..];
    }
});
