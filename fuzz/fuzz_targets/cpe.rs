//! A CPE name from a mapping or an os-release, of any text.
#![no_main]

use afferent_fuzz::report::cpe::Cpe;
use libfuzzer_sys::fuzz_target;

/// The grammar by which the tests judge a report.
#[path = "../../tests/it/conformance/cpe_syntax.rs"]
mod cpe_syntax;

fuzz_target!(|text: &str| {
    if let Ok(cpe) = text.parse::<Cpe>() {
        assert_eq!(cpe_syntax::check(cpe.as_str()), Ok(()), "{text:?}");
        assert_eq!(cpe.as_str().parse::<Cpe>().as_ref(), Ok(&cpe));
    }
    // What is refused has no wildcards, quotes or escapes that the grammar would take as they are.
    if cpe_syntax::check(text).is_ok() && !text.contains('\\') {
        let cpe = text.parse::<Cpe>().expect("a name by the grammar");
        assert_eq!(cpe.as_str(), text);
    }
});
