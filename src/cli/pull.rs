//! `afferent pull`: flags as typed.

use argh::FromArgs;

/// (to come)
#[derive(FromArgs)]
#[argh(subcommand, name = "pull")]
pub(super) struct PullArgs {}

pub(super) fn run(_args: PullArgs) -> u8 {
    super::complain(super::FAILED, "pull: to come")
}
