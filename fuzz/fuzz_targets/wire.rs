//! What a peer sends, of any content: a frame, a request, a response with a report in it.
#![no_main]

use afferent_fuzz::report::facts;
use afferent_fuzz::wire::message::{
    GetReportResponse, VmServiceRequest, VmServiceResponse, response,
};
use afferent_fuzz::wire::response::{Answer, Payload, Response, leading_meta};
use afferent_fuzz::wire::{MAX_REQUEST, frame, report_to_wire};
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
    // Of any beginning, and of any end.
    let _ = leading_meta(data);
    let Ok(response) = Response::decode(data) else {
        return;
    };
    // What both readers take means the same to both.
    if let Ok(theirs) = VmServiceResponse::decode(data) {
        // An encoder says first what is about the report.
        assert_eq!(leading_meta(&theirs.encode_to_vec()), theirs.meta);
        assert_eq!(response.meta, theirs.meta.unwrap_or_default());
        let ours = matches!(response.payload, Some(Payload::Report(_)));
        let theirs = matches!(theirs.payload, Some(response::Payload::GetReport(_)));
        assert_eq!(ours, theirs);
    }
    let Some(Payload::Report(Answer {
        index: Some(index), ..
    })) = response.payload
    else {
        return;
    };
    // A report that is taken can be sent on, and is the same report then.
    if let Ok(report) = index.into_report(facts::content_of(&response.meta.facts)) {
        let ours = report.to_report();
        assert_eq!(ours.digest(), report.digest());
        let sent = VmServiceResponse {
            meta: None,
            payload: Some(response::Payload::GetReport(GetReportResponse {
                index_report: Some(report_to_wire(&ours)),
                unchanged: false,
            })),
        }
        .encode_to_vec();
        let again = Response::decode(&sent).expect("an answer of our own");
        let Some(Payload::Report(Answer {
            index: Some(index), ..
        })) = again.payload
        else {
            panic!("a report became something else");
        };
        let again = index
            .into_report(ours.facts.clone())
            .expect("a report that was taken");
        assert_eq!(again.digest(), report.digest());
    }
});
