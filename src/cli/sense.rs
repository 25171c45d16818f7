//! `afferent sense`: flags as typed.

use argh::FromArgs;

/// (to come)
#[derive(FromArgs)]
#[argh(subcommand, name = "sense")]
pub(super) struct SenseArgs {}

pub(super) fn run(_args: SenseArgs) -> u8 {
    super::complain(super::FAILED, "sense: to come")
}
