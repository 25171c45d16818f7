//! What answers of every kind of agent mean to the sensor.

use super::*;
use crate::report::{Package, Report};
use crate::sense::queue::table::DocumentId;
use crate::wire::message::{GetReportResponse, ResponseMeta, VmServiceResponse, response};
use crate::wire::{meta, report_to_wire};
use prost::Message;

/// An agent that says this, with a report of this package or none.
fn answer(meta: &ResponseMeta, token: Option<&str>, package: Option<&str>) -> Vec<u8> {
    let report = package.map(|name| {
        report_to_wire(&Report {
            packages: vec![Package {
                name: name.into(),
                ..Package::default()
            }],
            ..Report::default()
        })
    });
    let answer = GetReportResponse {
        unchanged: report.is_none(),
        index_report: report,
    };
    let payload = VmServiceResponse {
        meta: None,
        payload: Some(response::Payload::GetReport(answer)),
    };
    [meta::encode(meta, token), payload.encode_to_vec()].concat()
}

fn counted(epoch: u32, generation: u32, facts: &[(&str, &str)]) -> ResponseMeta {
    ResponseMeta {
        report_generation: generation,
        epoch,
        facts: facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..ResponseMeta::default()
    }
}

fn understood(bytes: &[u8], row: &GuestRow, ask: Ask) -> Result<GuestAnswer<'static>, Failure> {
    let bytes = bytes.to_vec().leak();
    let seen = SeenClock::new(WallTime::from_unix_ms(5));
    understand(
        bytes,
        Context {
            vm: &"a".parse().unwrap(),
            address: &"unix:/a".parse().unwrap(),
            row,
            ask,
            seen: &seen,
            now: WallTime::from_unix_ms(3),
        },
        &mut None,
    )
}

/// What is known after this answer, as the sensor keeps it.
fn row_after(answer: &GuestAnswer<'_>) -> GuestRow {
    let summary = answer.document.as_ref().unwrap().summary();
    GuestRow {
        known: Some(DocumentId::from(&summary)),
        echo: answer.echo.clone(),
        facts: Some(summary.facts),
        tokens: summary.key.generation.get(),
        ..GuestRow::default()
    }
}

const DIGEST: &str = "sha256:0101010101010101010101010101010101010101010101010101010101010101";

#[test]
fn what_is_sent_back_is_the_agents_own_digest_and_not_the_sensors_hash() {
    let meta = counted(77, 12, &[(facts::REPORT_DIGEST, DIGEST)]);
    let answer = understood(
        &answer(&meta, None, Some("a")),
        &GuestRow::default(),
        Ask::Full,
    )
    .unwrap();
    let document = answer.document.as_ref().unwrap();
    assert_ne!(document.digest.to_string(), DIGEST);
    let digest = Some(DIGEST.parse().unwrap());
    assert_eq!(
        answer.echo,
        Echo::Pair {
            key: document.key,
            digest
        }
    );
    assert_eq!(
        document.seen_at,
        WallTime::from_unix_ms(6),
        "above the mark"
    );
}

#[test]
fn unchanged_counts_only_of_what_was_said_before() {
    let meta =
        |epoch, generation, digest| counted(epoch, generation, &[(facts::REPORT_DIGEST, digest)]);
    let first = answer(&meta(77, 12, DIGEST), None, Some("a"));
    let row = row_after(&understood(&first, &GuestRow::default(), Ask::Full).unwrap());
    let other = DIGEST.replace('1', "2");
    for (epoch, generation, digest, is_taken) in [
        (77, 12, DIGEST, true),
        // A new epoch with the same content.
        (78, 1, DIGEST, true),
        (77, 12, other.as_str(), false),
        // Without digests the key must be the same.
        (77, 12, "", true),
        (77, 11, "", false),
        (78, 12, "", false),
    ] {
        let said = answer(&meta(epoch, generation, digest), None, None);
        let result = understood(&said, &row, Ask::Get);
        assert_eq!(result.is_ok(), is_taken, "{epoch} {generation} {digest}");
        assert!(
            understood(&said, &row, Ask::Full).is_err(),
            "a full report was asked for"
        );
        assert!(understood(&said, &GuestRow::default(), Ask::Get).is_err());
    }
}

#[test]
fn facts_that_changed_alone_are_a_document_once_and_keep_the_reports_key() {
    let with = |boot: &str| counted(77, 12, &[("boot_id", boot), (facts::LAST_SCAN_AT, boot)]);
    let first = answer(&with("a"), None, Some("a"));
    let mut row = row_after(&understood(&first, &GuestRow::default(), Ask::Full).unwrap());
    let unchanged = |boot: &str| answer(&with(boot), None, None);
    assert!(
        understood(&unchanged("a"), &row, Ask::Get)
            .unwrap()
            .document
            .is_none()
    );
    let changed = understood(&unchanged("b"), &row, Ask::Get).unwrap();
    let document = changed.document.as_ref().unwrap();
    assert!(document.report.is_none());
    let known = DocumentId {
        facts: None,
        ..DocumentId::from(&document.summary())
    };
    assert_eq!(Some(known), row.known);
    row.facts = Some(changed.facts);
    assert!(
        understood(&unchanged("b"), &row, Ask::Get)
            .unwrap()
            .document
            .is_none()
    );
    // A row of version 0.1 does not say which facts were sent.
    row.facts = None;
    assert!(
        understood(&unchanged("c"), &row, Ask::Get)
            .unwrap()
            .document
            .is_none()
    );
}
