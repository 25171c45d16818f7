//! What may identify hardware: texts that really name one thing.

use crate::mirror::entry::CoreEntry;

/// What firmware says when nobody gave the chassis a serial number, in lower case. A serial number of
/// zeros only, or of blanks, is none either.
const PLACEHOLDERS: [&str; 12] = [
    "na",
    "n/a",
    "none",
    "null",
    "unknown",
    "not specified",
    "not applicable",
    "not available",
    "default string",
    "system serial number",
    "chassis serial number",
    "to be filled by o.e.m.",
];

/// The halves of a pair as Core sent them, without those that identify nothing. `report` is told what was
/// left out, and of a serial number that looks mistyped.
pub(super) fn halves<'a>(
    manufacturer: Option<&'a str>,
    serial: Option<&'a str>,
    mut report: impl FnMut(&str, String),
) -> (Option<&'a str>, Option<&'a str>) {
    let mut clean = |name: &str, text: Option<&'a str>| {
        let text = text?;
        if is_invalid(text) {
            report(
                "invalid_text",
                format!("the {name} holds a control character: it identifies nothing"),
            );
            return None;
        }
        Some(text)
    };
    let manufacturer = clean("manufacturer", manufacturer);
    let serial = clean("serial number", serial);
    if let Some(text) = serial.filter(|text| is_placeholder(text)) {
        let why = format!("the serial number {text:?} is a placeholder: it identifies nothing");
        report("placeholder_serial", why);
        return (manufacturer, None);
    }
    if serial.is_some_and(|text| text.trim() != text) {
        let why = "the serial number begins or ends with a blank";
        report("suspicious_serial", why.into());
    }
    (manufacturer, serial)
}

/// Whether a text cannot be an identity.
pub(super) fn is_invalid(text: &str) -> bool {
    match text.is_ascii() {
        true => text.bytes().any(|byte| byte.is_ascii_control()),
        false => text.chars().any(char::is_control),
    }
}

fn is_placeholder(serial: &str) -> bool {
    let serial = serial.trim();
    if !serial.is_ascii() {
        return PLACEHOLDERS.contains(&serial.to_lowercase().as_str());
    }
    let is = |placeholder: &&str| placeholder.eq_ignore_ascii_case(serial);
    serial.bytes().all(|byte| byte == b'0') || PLACEHOLDERS.iter().any(is)
}

/// Reports labels that came twice.
pub(super) fn report_duplicate_labels(entry: &CoreEntry, mut report: impl FnMut(&str, String)) {
    for label in entry.duplicate_labels() {
        let why = format!("the label {label} came twice: the last one counts");
        report("duplicate_label", why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(serial: &str) -> (Option<&str>, Vec<String>) {
        let mut codes = Vec::new();
        let (_, serial) = halves(Some("Foxwell"), Some(serial), |code, _| {
            codes.push(code.into());
        });
        (serial, codes)
    }

    #[test]
    fn what_every_unlabelled_chassis_says_identifies_none() {
        for text in [
            "NA",
            "n/a",
            "0",
            "0000",
            " ",
            "None",
            "Default String",
            "To Be Filled By O.E.M. ",
        ] {
            assert_eq!(
                checked(text),
                (None, vec!["placeholder_serial".to_owned()]),
                "{text:?}"
            );
        }
        for text in ["NA1", "10", "O", "None-1"] {
            assert_eq!(checked(text), (Some(text), vec![]), "{text:?}");
        }
        assert_eq!(
            checked("A "),
            (Some("A "), vec!["suspicious_serial".to_owned()])
        );
        assert_eq!(checked("A\0"), (None, vec!["invalid_text".to_owned()]));
    }

    #[test]
    fn a_label_that_came_twice_is_reported_once_whatever_form_labels_have() {
        for labels in [
            r#"[{"key":"slot_id","value":"1"},{"key":"slot_id","value":"2"},{"key":"slot_id","value":"3"},{"key":"x"},{"key":"x"}]"#,
            r#"{"slot_id":"1","slot_id":"3"}"#,
        ] {
            let entry: CoreEntry =
                serde_json::from_str(&format!(r#"{{"labels":{labels}}}"#)).unwrap();
            let mut codes = Vec::new();
            report_duplicate_labels(&entry, |code, why| codes.push(format!("{code}: {why}")));
            assert_eq!(
                codes,
                ["duplicate_label: the label slot_id came twice: the last one counts"]
            );
            assert_eq!(entry.label("slot_id"), Some("3"));
        }
    }
}
