//! What an API server sends over a websocket, of any content, however it is cut.
#![no_main]

use afferent_fuzz::kube::frame::{Decoder, FrameFault, Piece};
use libfuzzer_sys::fuzz_target;

/// Data and the other pieces.
fn decode(bytes: &[u8], part: usize) -> Result<(Vec<u8>, Vec<Piece>), FrameFault> {
    let (mut decoder, mut out, mut pieces) = (Decoder::default(), Vec::new(), Vec::new());
    for mut bytes in bytes.chunks(part) {
        while !bytes.is_empty() {
            let (taken, piece) = decoder.decode(bytes, &mut out)?;
            bytes = &bytes[taken..];
            if piece != Piece::Data {
                pieces.push(piece);
            }
        }
    }
    Ok((out, pieces))
}

fuzz_target!(|data: &[u8]| {
    let whole = decode(data, data.len().max(1));
    assert_eq!(whole, decode(data, 1));
    if let Ok((out, _)) = whole {
        assert!(out.len() <= data.len());
    }
});
