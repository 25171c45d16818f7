//! What a peer sends, of any content: a frame, a request, a response with a report in it.
#![no_main]

use afferent_fuzz::report::facts;
use afferent_fuzz::wire::message::{VmServiceRequest, VmServiceResponse, response};
use afferent_fuzz::wire::{MAX_REQUEST, frame, report_from_wire, report_to_wire};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame::Decoded::Frame { body_len }) = frame::decode(data, MAX_REQUEST) {
        assert!(frame::HEADER + body_len <= data.len());
    }
    // What was understood is understood again, and alike.
    if let Ok(request) = VmServiceRequest::decode(data) {
        let again = VmServiceRequest::decode(request.encode_to_vec().as_slice());
        assert_eq!(again.as_ref(), Ok(&request));
    }
    let Ok(response) = VmServiceResponse::decode(data) else {
        return;
    };
    let Some(response::Payload::GetReport(answer)) = response.payload else {
        return;
    };
    let Some(index) = answer.index_report else {
        return;
    };
    let meta = response.meta.unwrap_or_default();
    // A report that is taken can be sent on, and is the same report then.
    if let Ok(report) = report_from_wire(index, facts::content_of(&meta.facts)) {
        let again = report_from_wire(report_to_wire(&report), report.facts.clone());
        let again = again.expect("a report that was taken");
        assert_eq!(again.digest(), report.digest());
    }
});
