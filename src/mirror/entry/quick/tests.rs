//! What is read quickly, beside what `serde_json` reads.

use super::*;
use crate::mirror::entry::list::objects;
use crate::mirror::entry::{elements, members};
use proptest::prelude::*;
use serde_json::Value;

/// Values as they come, and as they do not.
fn values() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null"),
        Just("true"),
        Just("0"),
        Just("-0"),
        Just("7"),
        Just("-12"),
        Just("01"),
        Just("1.5"),
        Just("1e3"),
        Just("-"),
        Just("123456789012345678901234567890"),
        Just("nul"),
        Just("\"\""),
        Just("\"rack-1\""),
        Just("\"a longer text than eight\""),
        Just("\"\u{e9}\u{1f600}\""),
        Just("\"a\\n\\u00e9\\ud83d\""),
        Just("\"\\x\""),
        Just("\"\t\""),
        Just("\"open"),
    ]
    .prop_map(str::to_owned);
    let names = prop_oneof![
        Just("id"),
        Just("value"),
        Just("key"),
        Just("name"),
        Just("description"),
        Just("labels"),
        Just("metadata"),
        Just("rack_id"),
        Just("rackId"),
        Just("bmcMacAddress"),
        Just("chassis_serial_number"),
        Just("serial_number"),
        Just("slot_id"),
        Just("hostId"),
        Just("manufacturer"),
        Just("else"),
        Just("esc\\u0061pe"),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let blank = prop_oneof![Just(""), Just(" "), Just("\n\t")];
        let list = proptest::collection::vec(inner.clone(), 0..4);
        let object = proptest::collection::vec((names.clone(), inner), 0..6);
        prop_oneof![
            list.prop_map(|values| format!("[{}]", values.join(","))),
            (object, blank).prop_map(|(members, blank)| {
                let member = |(name, value): (&str, String)| {
                    format!("{blank}\"{name}\"{blank}:{blank}{value}{blank}")
                };
                let members: Vec<String> = members.into_iter().map(member).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// The loss: an entry that is read as something else than what it says.
    #[test]
    fn what_is_read_quickly_is_what_serde_json_reads(text in values(), end in prop_oneof![Just(""), Just(" "), Just("x")]) {
        let text = format!("{text}{end}");
        let mut cursor = JsonCursor::new(&text);
        if let Some(entry) = CoreEntry::quick(&mut cursor) {
            let length = text.len() - cursor.rest().len();
            let expected: CoreEntry = serde_json::from_str(&text[..length]).unwrap();
            prop_assert_eq!(format!("{entry:?}"), format!("{expected:?}"));
        }
    }

    #[test]
    fn a_value_is_one_where_serde_json_reads_one(text in values(), cut in any::<prop::sample::Index>()) {
        let cuts = text.char_indices().map(|(n, _)| n).chain([text.len()]);
        let cut = *cut.get(&cuts.collect::<Vec<usize>>());
        for text in [&text[..cut], &text] {
            let mut cursor = JsonCursor::new(text);
            if cursor.value().is_some() && cursor.is_at_end() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(), "{}", text);
            }
        }
    }

    #[test]
    fn the_members_of_an_object_are_where_serde_json_finds_them(text in values()) {
        let Some(found) = JsonCursor::new(&text).members() else {
            return Ok(());
        };
        let expected = members(text.as_bytes()).unwrap();
        for (name, place) in &found {
            // The last of one name counts.
            if found.iter().rfind(|(other, _)| other == name).is_some_and(|(_, last)| last == place) {
                prop_assert_eq!(&text[place.clone()], expected[*name].get());
            }
        }
        prop_assert!(found.iter().all(|(name, _)| expected.contains_key(*name)));
    }

    #[test]
    fn a_list_is_read_as_far_as_its_entries_can_be(entries in proptest::collection::vec(values(), 0..5)) {
        let text = format!("[{}]", entries.join(", "));
        let mut read = Vec::new();
        let is_whole = objects(&text, |entry: CoreEntry| read.push(format!("{entry:?}")));
        let all: Option<Vec<CoreEntry>> = elements(text.as_bytes()).ok().and_then(|elements| {
            let objects = elements.iter().filter(|element| element.get().starts_with('{'));
            let objects: Vec<CoreEntry> = objects.map(|element| serde_json::from_str(element.get()).ok()).collect::<Option<_>>()?;
            (objects.len() == elements.len()).then_some(objects)
        });
        prop_assert_eq!(is_whole, all.is_some());
        if let Some(all) = all {
            let all: Vec<String> = all.iter().map(|entry| format!("{entry:?}")).collect();
            prop_assert_eq!(read, all);
        }
    }

    #[test]
    fn the_plain_beginning_of_a_text_ends_where_it_ends_byte_by_byte(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'a')], 0..40)) {
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
        let expected = bytes.iter().position(is_special).unwrap_or(bytes.len());
        prop_assert_eq!(plain_length(&bytes), expected);
    }
}

/// What Core usually sends is not given up: else all of this is in vain.
#[test]
fn entries_of_both_dialects_are_read_quickly() {
    let file = r#"{"bmc_mac_address":"02:00:60:00:00:01","bmc_ip_address":"10.0.0.1","chassis_serial_number":"MC-1",
        "rack_id":{"id":"rack-1"},"metadata":{"name":"n","labels":[{"key":"slot_id","value":"3"}]}}"#;
    let rest = r#"{"id": "7b0", "siteId": "s", "rackId": null, "bmcMacAddress": "02:00:60:00:00:01", "slotId": 3,
        "chassisSerialNumber": "MC-1", "labels": {"a": "b"}, "created": "2026", "rack": {"x": [1.5, "&"]}}"#;
    for text in [file, rest] {
        let mut cursor = JsonCursor::new(text);
        assert!(
            CoreEntry::quick(&mut cursor).is_some() && cursor.is_at_end(),
            "{text}"
        );
    }
    let whole = format!(r#"{{"expected_machines": [{file}], "else": {{}}}}"#);
    let members = JsonCursor::new(&whole).members().unwrap();
    assert_eq!(members.len(), 2);
    assert!(
        serde_json::from_str::<Value>(&whole[members[0].1.clone()])
            .unwrap()
            .is_array()
    );
}
