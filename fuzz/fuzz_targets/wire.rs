//! What a peer sends, of any content: a frame, a request, a response with a report in it.
#![no_main]

use afferent_fuzz::report::{Report, facts};
use afferent_fuzz::wire::message::{
    GetReportResponse, VmServiceRequest, VmServiceResponse, request, response,
};
use afferent_fuzz::wire::meta::{self, Meta};
use afferent_fuzz::wire::request::{Knowledge, Method, Request, encode, encode_push};
use afferent_fuzz::wire::response::{Answer, Payload, Response, leading_meta};
use afferent_fuzz::wire::{MAX_REQUEST, frame, report_to_wire};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame::Decoded::Frame { body_len }) = frame::decode(data, MAX_REQUEST) {
        assert!(frame::HEADER + body_len <= data.len());
    }
    if let Ok(request) = Request::decode(data) {
        check_request(data, &request);
    }
    // Of any beginning, and of any end.
    let _ = leading_meta(data);
    if let Ok(response) = Response::decode(data) {
        check_response(data, response);
    }
});

fn check_request(data: &[u8], request: &Request<'_>) {
    // What both readers take means the same to both: prost knows the first generation only.
    if let Ok(theirs) = VmServiceRequest::decode(data) {
        let (known, wait) = match &theirs.method {
            None => return assert_eq!(request.method, None),
            Some(request::Method::GetReport(get)) => {
                let known = (
                    get.last_known_generation,
                    get.known_epoch,
                    &get.known_digest,
                );
                (known, None)
            }
            Some(request::Method::WaitReport(wait)) => {
                let known = (
                    wait.last_known_generation,
                    wait.known_epoch,
                    &wait.known_digest,
                );
                (known, Some(wait.timeout_ms))
            }
            Some(request::Method::SyncRepoCpeMapping(sync)) => {
                let expected = Method::SyncMapping(&sync.mapping);
                return assert_eq!(request.method, Some(expected));
            }
        };
        let (generation, epoch, digest) = known;
        let known = Knowledge {
            generation,
            epoch,
            digest,
            token: "",
        };
        let expected = match wait {
            None => Method::GetReport(known),
            Some(timeout_ms) => Method::WaitReport(known, timeout_ms),
        };
        assert_eq!(request.method, Some(expected));
    }
    // What is asked in the words of this program is understood as it was meant.
    let (known, wait) = match &request.method {
        None => return,
        Some(Method::SyncMapping(mapping)) => {
            let sent = encode_push(mapping);
            let again = Request::decode(&sent[frame::HEADER..]).expect("a request of our own");
            return assert_eq!(again.method, request.method);
        }
        // A token names a report alone, and in a request that does not wait.
        Some(Method::GetReport(known)) if !known.token.is_empty() => {
            let token = known.token;
            let known = Knowledge {
                token,
                ..Knowledge::default()
            };
            (known, None)
        }
        Some(Method::GetReport(known)) => (*known, None),
        Some(Method::WaitReport(known, timeout_ms)) => {
            let known = Knowledge {
                token: "",
                ..*known
            };
            (known, Some(*timeout_ms))
        }
    };
    let sent = encode(known, wait.map(|ms| Duration::from_millis(ms.into())));
    let again = Request::decode(&sent[frame::HEADER..]).expect("a request of our own");
    let expected = match wait {
        None => Method::GetReport(known),
        Some(timeout_ms) => Method::WaitReport(known, timeout_ms),
    };
    assert_eq!(again.method, Some(expected));
}

fn check_response(data: &[u8], response: Response<'_>) {
    if let Ok(theirs) = VmServiceResponse::decode(data) {
        let sent = theirs.meta.clone().unwrap_or_default();
        let expected = Meta {
            agent_version: sent.agent_version.clone(),
            generated_at: sent.report_generated_at,
            generation: sent.report_generation,
            epoch: sent.epoch,
            token: String::new(),
            supported_methods: sent.supported_methods.clone(),
            facts: sent.facts.clone(),
            mapping_hash: sent.mapping_hash.clone().unwrap_or_default(),
            update_path: sent.update_path,
            capabilities: sent.capabilities.clone(),
        };
        assert_eq!(response.meta, expected);
        match (&response.payload, &theirs.payload) {
            (None, None) => {}
            (Some(Payload::Report(ours)), Some(response::Payload::GetReport(theirs))) => {
                assert_eq!(ours.unchanged, theirs.unchanged);
            }
            (Some(Payload::Error(ours)), Some(response::Payload::Error(theirs))) => {
                assert_eq!(ours, theirs);
            }
            (
                Some(Payload::Synced { updated }),
                Some(response::Payload::SyncRepoCpeMapping(theirs)),
            ) => assert_eq!(*updated, theirs.updated),
            (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
        }
        // In both layouts at once it says the same; the head of an answer is enough for it.
        let head = meta::encode(&sent, Some("77:12:0123456789abcdef"));
        let both = leading_meta(&head).expect("a meta of our own");
        let token = "77:12:0123456789abcdef".to_owned();
        assert_eq!(
            both,
            Meta {
                token,
                ..expected.clone()
            }
        );
        assert_eq!(leading_meta(&meta::encode(&sent, None)), Some(expected));
    }
    let Some(Payload::Report(Answer {
        index: Some(index), ..
    })) = response.payload
    else {
        return;
    };
    // A report that is taken can be sent on. What a foreign agent sent may change on the first way (a
    // version without a release, a CPE in another form), and never again.
    if let Ok(view) = index.into_report(facts::content_of(&response.meta.facts)) {
        assert_eq!(view.to_report().digest(), view.digest());
        let once = sent_on(&view.to_report());
        assert_eq!(once.packages.len(), view.packages.len());
        let twice = sent_on(&once);
        assert_eq!(twice, once);
        assert_eq!(twice.digest(), once.digest());
    }
}

/// The report as it arrives.
fn sent_on(report: &Report) -> Report {
    let sent = VmServiceResponse {
        meta: None,
        payload: Some(response::Payload::GetReport(GetReportResponse {
            index_report: Some(report_to_wire(report)),
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
    let view = index
        .into_report(report.facts.clone())
        .expect("a report that was taken");
    view.to_report()
}
