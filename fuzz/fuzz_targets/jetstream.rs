//! What JetStream answers, of any content.
#![no_main]

use afferent_fuzz::nats::jetstream::{StreamAnswer, covers};
use afferent_fuzz::visible::visible;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(answer) = StreamAnswer::parse(data) else {
        return;
    };
    if let Some(error) = answer.error {
        let said = error.to_string();
        assert_eq!(visible(&said), said);
    }
    let subjects = answer.subjects.unwrap_or_default();
    // Who takes the subjects of all guests takes that of each.
    if covers(&subjects, "afferent.reports.*") {
        assert!(covers(&subjects, "afferent.reports.web-1"), "{subjects:?}");
    }
    for subject in subjects.iter().filter(|subject| !subject.contains('>')) {
        assert!(covers(&subjects, subject));
    }
});
