//! What a service is asked, of any content: words on its control socket, HTTP on its port for metrics.
#![no_main]

use afferent_fuzz::telemetry::request::{HttpRequest, words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(words_of) = words(data) {
        let line = words_of.join(" ");
        assert_eq!(words(line.as_bytes()).as_ref(), Ok(&words_of));
    }
    let whole = HttpRequest::parse(data);
    if let Ok(Some(request)) = &whole {
        assert!(!request.path.contains('?'));
        assert!(!(request.is_get && request.is_head));
    }
    // It does not matter in how many parts a request comes.
    for end in [data.len() / 4, data.len() / 2, data.len().saturating_sub(1)] {
        match HttpRequest::parse(&data[..end]) {
            Ok(None) => {}
            Ok(Some(request)) => assert_eq!(whole, Ok(Some(request))),
            Err(_) => assert!(whole.is_err()),
        }
    }
});
