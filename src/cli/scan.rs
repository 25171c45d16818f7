//! `afferent scan`: flags as typed.

use argh::FromArgs;

/// (to come)
#[derive(FromArgs)]
#[argh(subcommand, name = "scan")]
pub(super) struct ScanArgs {}

pub(super) fn run(_args: ScanArgs) -> u8 {
    super::complain(super::FAILED, "scan: to come")
}
