//! `http:` scenarios: what the server answers, in the order it is asked.

use super::translate::site_id;
use crate::support::core_server::{Answer, CoreServer, page, status};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// A server that follows the script; lists without one are not there.
pub fn start(http: &Value) -> CoreServer {
    let script = http.as_object().unwrap().clone();
    let asked: Mutex<HashMap<String, usize>> = Mutex::default();
    CoreServer::start(move |request| {
        let list = request.path.rsplit('/').next().unwrap_or_default();
        let Some(answers) = script.get(list).and_then(Value::as_array) else {
            return status(404);
        };
        let n = {
            let mut asked = asked.lock().unwrap();
            let n = asked.entry(list.to_owned()).or_default();
            *n += 1;
            *n - 1
        };
        // After the script, its last answer again.
        let answer = answers.get(n).or(answers.last()).unwrap();
        match answer.get("then") {
            Some(then) => {
                assert_eq!(then, "restart consistent with 3");
                consistent(answers)
            }
            None => plain(answer),
        }
    })
}

/// Everything that earlier pages held, and what was never shown, in one page.
fn consistent(answers: &[Value]) -> Answer {
    let shown = answers
        .iter()
        .filter_map(|a| a["items"].as_array())
        .flatten();
    let mut items: Vec<Value> = shown.cloned().collect();
    items.push(
        json!({"id": "00000000-0000-4000-8000-000000000002", "bmcMacAddress": "02:00:5e:30:00:02",
                      "chassisSerialNumber": "O2", "manufacturer": "Foxwell", "name": "O2"}),
    );
    page(&json!(items), 3)
}

fn plain(answer: &Value) -> Answer {
    for key in answer.as_object().unwrap().keys() {
        let known = [
            "status",
            "headers",
            "items",
            "body_raw",
            "slow_bytes_per_s",
            "page",
        ];
        assert!(known.contains(&key.as_str()), "unknown: http {key}");
    }
    let headers = answer.get("headers").and_then(Value::as_object);
    let headers = headers.into_iter().flatten();
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let headers = headers
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    let code = u16::try_from(answer["status"].as_u64().unwrap()).unwrap();
    let body = match (answer.get("items"), answer.get("body_raw")) {
        (Some(items), _) => with_site_ids(items.clone()).to_string(),
        (None, Some(raw)) => raw.as_str().unwrap().to_owned(),
        (None, None) => String::new(),
    };
    match answer.get("slow_bytes_per_s") {
        Some(pace) => {
            let pause = Duration::from_secs(1) / u32::try_from(pace.as_u64().unwrap()).unwrap();
            Answer::Slowly(code, headers, b"[                    ]".to_vec(), pause)
        }
        None => Answer::Plain(code, headers, body.into_bytes()),
    }
}

fn with_site_ids(mut items: Value) -> Value {
    for item in items.as_array_mut().into_iter().flatten() {
        if let Some(site) = item.get("siteId").and_then(Value::as_str).map(site_id) {
            item["siteId"] = json!(site);
        }
    }
    items
}
