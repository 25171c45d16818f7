//! `afferent mirror`: flags as typed.

use argh::FromArgs;

/// (to come)
#[derive(FromArgs)]
#[argh(subcommand, name = "mirror")]
pub(super) struct MirrorArgs {}

pub(super) fn run(_args: MirrorArgs) -> u8 {
    super::complain(super::FAILED, "mirror: to come")
}
