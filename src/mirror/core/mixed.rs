//! Expected inventory from one source, observed devices from another: for a Core whose REST interface does
//! not show all devices that an exporter beside it can see.

use super::{Core, Device, Pull, Topology};
use crate::inventory::Kind;
use crate::mirror::entry::CoreEntry;
use crate::mirror::progress::Progress;
use sha2::{Digest, Sha256};

/// Two sources as one.
pub struct MixedCore {
    expected: Box<dyn Core + Send>,
    observed: Box<dyn Core + Send>,
}

impl MixedCore {
    /// Expected lists come from the first, observed ones from the second.
    pub fn new(expected: Box<dyn Core + Send>, observed: Box<dyn Core + Send>) -> Self {
        Self { expected, observed }
    }
}

impl Core for MixedCore {
    fn begin(&mut self) {
        self.expected.begin();
        self.observed.begin();
    }

    fn end(&mut self) {
        self.expected.end();
        self.observed.end();
    }

    fn report_to(&mut self, progress: Progress) {
        self.expected.report_to(progress.clone());
        self.observed.report_to(progress);
    }

    fn expected(&mut self, kind: Kind) -> Pull<CoreEntry> {
        self.expected.expected(kind)
    }

    fn expected_each(&mut self, kind: Kind, each: &mut dyn FnMut(CoreEntry)) -> Pull<()> {
        self.expected.expected_each(kind, each)
    }

    fn observed(&mut self, kind: Kind) -> Pull<Device> {
        self.observed.observed(kind)
    }

    fn topology(&mut self) -> Topology {
        self.observed.topology()
    }

    fn several_sites(&self) -> Option<String> {
        let expected = self.expected.several_sites();
        expected.or_else(|| self.observed.several_sites())
    }

    fn source(&self) -> String {
        format!(
            "{}, observed from {}",
            self.expected.source(),
            self.observed.source()
        )
    }

    fn fingerprint(&mut self) -> Option<[u8; 32]> {
        let mut both = Sha256::new();
        both.update(self.expected.fingerprint()?);
        both.update(self.observed.fingerprint()?);
        Some(both.finalize().into())
    }
}
