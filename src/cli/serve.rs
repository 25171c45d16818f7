//! `afferent serve`: flags as typed.

use argh::FromArgs;

/// (to come)
#[derive(FromArgs)]
#[argh(subcommand, name = "serve")]
pub(super) struct ServeArgs {}

pub(super) fn run(_args: ServeArgs) -> u8 {
    super::complain(super::FAILED, "serve: to come")
}
