//! Reports made smaller, for sinks that send them over a network.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// Bodies from this many bytes on are compressed. Below, as most reports are, compressing would take
/// more of the sensor's time than everything else it does with a report.
pub(super) const COMPRESS_FROM: usize = 256 << 10;

/// `body` compressed: quickly, or as much as can be.
pub(super) fn gzip(body: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), level);
    // Writing into memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}
