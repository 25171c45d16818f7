//! What is answered to whom.

use super::*;
use crate::report::{Epoch, Generation, Package};
use crate::serve::mapping::UpdatePath;
use crate::wire::frame;
use crate::wire::request;
use proptest::prelude::*;

/// Of an agent with a file.
const MAPPING: MappingState = MappingState {
    path: UpdatePath::Url,
    hash: None,
};

fn asked(body: &[u8]) -> Asked {
    match understand(body, &MAPPING).unwrap() {
        Call::Report(asked) => asked,
        push @ Call::Push { .. } => panic!("{push:?}"),
    }
}

#[test]
fn a_full_answer_is_one_frame_with_meta_and_report() {
    let published = sample();
    let (head, tail) = published.full(false);
    let bytes = [&head[..], tail].concat();
    let frame::Decoded::Frame { body_len } = frame::decode(&bytes, 1 << 20).unwrap() else {
        panic!("not a whole frame");
    };
    assert_eq!(body_len + frame::HEADER, bytes.len());
    let response = VmServiceResponse::decode(&bytes[frame::HEADER..]).unwrap();
    let meta = response.meta.unwrap();
    assert_eq!((meta.epoch, meta.report_generation), (77, 12));
    assert_eq!(meta.facts[facts::SCAN_TRIGGER], "reactive");
    assert_eq!(meta.supported_methods, ["get_report", "wait_report"]);
    let Some(response::Payload::GetReport(answer)) = response.payload else {
        panic!("no report");
    };
    assert_eq!(
        answer
            .index_report
            .unwrap()
            .contents
            .unwrap()
            .packages
            .len(),
        1
    );
}

#[test]
fn unchanged_needs_the_same_digest_or_the_same_generation_of_the_same_epoch() {
    let published = sample();
    let digest = Some(published.row.digest);
    let other = Some(Report::default().digest());
    use Verdict::{Impossible, Other, Same};
    for (generation, epoch, digest, verdict) in [
        (12, 77, None, Same),
        (12, 0, None, Same),
        (12, 78, None, Other),
        (11, 77, None, Other),
        (13, 77, None, Impossible),
        (13, 0, None, Other),
        (13, 78, None, Other),
        (0, 77, None, Other),
        (0, 77, digest, Other),
        (3, 5, digest, Same),
        (13, 77, digest, Impossible),
        (12, 77, digest, Same),
        (12, 77, other, Impossible),
        (11, 77, other, Other),
        (12, 78, other, Other),
    ] {
        let known = Known {
            generation,
            epoch,
            digest,
            ..Known::default()
        };
        assert_eq!(published.compare(&known), verdict, "{known:?}");
    }
}

// The loss: a guest that answers every sensor, and of which none takes the report.
#[test]
fn a_report_that_no_sensor_takes_is_known_here() {
    assert_eq!(sample().too_large(), None);
    let half = usize::try_from(MAX_RESPONSE).unwrap() / 2;
    let package = |name: &str| Package {
        name: name.repeat(half),
        ..Package::default()
    };
    let stored = StoredReport {
        row: sample().row,
        report: Report {
            packages: vec![package("a"), package("b")],
            ..Report::default()
        },
    };
    let scan = sample().last_scan;
    let published = Published::new(&stored, None, scan, MAPPING);
    let why = published.too_large().unwrap();
    assert!(why.contains("sensors take at most 16777216"), "{why}");
}

#[test]
fn a_token_is_the_published_report_an_earlier_one_or_one_that_was_never_made() {
    let published = sample();
    let own = published.token().to_string();
    let digest = published.row.digest.short();
    use Verdict::{Impossible, Other, Same};
    for (token, verdict) in [
        (own, Same),
        (format!("77:11:{digest}"), Other),
        (format!("77:13:{digest}"), Impossible),
        ("77:12:0000000000000000".into(), Impossible),
        (format!("78:12:{digest}"), Other),
        ("0123456789abcdef".into(), Other),
    ] {
        let known = Knowledge {
            token: &token,
            ..Knowledge::default()
        };
        let asked = asked(&request::encode(known, None)[frame::HEADER..]);
        assert_eq!(published.compare(&asked.known), verdict, "{token}");
    }
}

/// A sensor of version 0.1 sends a digest that it computed in a form of its own.
#[test]
fn the_digest_of_a_peer_without_report_v1_is_ignored() {
    let published = sample();
    let digest = Report::default().digest();
    let request = wire::VmServiceRequest {
        meta: None,
        method: Some(wire::request::Method::GetReport(wire::GetReport {
            last_known_generation: 12,
            known_epoch: 77,
            known_digest: digest.as_bytes().to_vec(),
        })),
    };
    let asked = asked(&request.encode_to_vec());
    assert_eq!(published.compare(&asked.known), Verdict::Same);
    assert!(!asked.is_report_v1);
}

#[test]
fn a_peer_without_report_v1_gets_the_first_layout_and_no_digest() {
    let published = sample();
    let meta = |is_report_v1| {
        let bytes = published.unchanged(is_report_v1);
        crate::wire::response::Response::decode(&bytes[frame::HEADER..])
            .unwrap()
            .meta
    };
    let (old, new) = (meta(false), meta(true));
    assert_eq!(
        (old.generation, old.epoch, old.token.as_str()),
        (12, 77, "")
    );
    assert!(!old.facts.contains_key(facts::REPORT_DIGEST));
    assert_eq!((new.generation, new.epoch), (12, 77));
    assert_eq!(new.token, published.token().to_string());
    assert_eq!(
        new.facts[facts::REPORT_DIGEST],
        published.row.digest.to_string()
    );
    assert_eq!(new.facts[facts::DIGEST_FORM], "2");
    // What version 0.1 reads it with.
    let bytes = published.unchanged(false);
    let prost = VmServiceResponse::decode(&bytes[frame::HEADER..]).unwrap();
    assert_eq!(prost.meta.unwrap().report_generation, 12);
}

#[test]
fn requests_are_understood_or_refused_with_a_code() {
    let code = |body: &[u8]| understand(body, &MAPPING).unwrap_err().code;
    assert_eq!(code(b""), ErrorCode::UnknownMethod);
    assert_eq!(code(b"\xff\xff\xff"), ErrorCode::MalformedRequest);
    let known = |digest| Knowledge {
        digest,
        ..Knowledge::default()
    };
    let short_digest = request::encode(known(&[1, 2]), None);
    assert_eq!(
        code(&short_digest[frame::HEADER..]),
        ErrorCode::MalformedRequest
    );
    let wait = request::encode(known(&[]), Some(Duration::MAX));
    let asked = asked(&wait[frame::HEADER..]);
    assert_eq!(asked.known, Known::default());
    assert_eq!(asked.wait, Some(LONGEST_WAIT));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>) {
        let _ = understand(&body, &MAPPING);
    }
}

fn sample() -> Published {
    let report = Report {
        packages: vec![Package {
            name: "bash".into(),
            ..Package::default()
        }],
        ..Report::default()
    };
    let row = ReportRow {
        key: ReportKey {
            epoch: Epoch::new(77),
            generation: Generation::new(12).unwrap(),
        },
        digest: report.digest(),
        digest_form: 2,
        trigger: Trigger::Reactive,
        generated_at: WallTime::from_unix_ms(5),
        scan_facts: Facts::new(),
        mapping: None,
    };
    let scan = Scan {
        at: WallTime::from_unix_ms(6),
        facts: Facts::new(),
        mapping: None,
    };
    let stored = StoredReport { row, report };
    Published::new(&stored, None, scan, MAPPING)
}
