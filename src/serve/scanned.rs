//! A scan, as it is told of beside its report.

use crate::clock::WallTime;
use crate::report::{Facts, MappingHash};

/// What is known of a scan beside its report.
#[derive(Clone, Debug)]
pub struct Scan {
    /// When it began.
    pub at: WallTime,
    /// Facts about it, which are not content.
    pub facts: Facts,
    /// The mapping from repositories to CPEs that it used.
    pub mapping: Option<MappingHash>,
}
