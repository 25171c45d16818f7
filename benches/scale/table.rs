//! What a consumer has of every guest, whichever consumer it is.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

/// What a table has of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub epoch: u32,
    pub generation: u32,
    /// How many packages.
    pub packages: u32,
    /// Version of the package that is another one in each generation.
    pub changing: String,
}

/// The table of a consumer; empty while there is none, or nobody answers.
pub trait Table {
    /// Who keeps it.
    const NAME: &'static str;

    /// Generation of each guest, by its number: a cheap question.
    fn generations(&self) -> HashMap<u32, u32>;

    /// Everything of each guest.
    fn rows(&self) -> HashMap<u32, Row>;

    /// The process that keeps it.
    fn pid(&self) -> u32;
}

/// Number of the guest of this name.
pub fn number(vm: &str) -> Option<u32> {
    vm.strip_prefix("g-")?.parse().ok()
}

/// SIGKILL to a process that runs.
pub fn kill(child: &mut Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "it had ended before: {status}");
}
