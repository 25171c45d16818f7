//! An API against its description: what is answered, and that everything described was asked for.

use super::web::{TOKEN, Web, WebAnswer, bearer};
use boon::{Compiler, Schemas};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The description that a running service gives of its API.
pub struct ApiDescription {
    document: Value,
    /// Whether an answer may have nothing but what is described.
    is_exact: bool,
    /// Each path and status that was answered as described.
    seen: BTreeSet<(String, u16)>,
}

impl ApiDescription {
    /// `is_exact`: an answer has nothing but what is described.
    pub fn of(web: &Web, is_exact: bool) -> Self {
        let answer = web.get("/openapi.json", "");
        assert_eq!(answer.code, 200);
        Self {
            document: answer.json(),
            is_exact,
            seen: BTreeSet::new(),
        }
    }

    /// The paths that it describes.
    pub fn paths(&self) -> Vec<String> {
        let paths = self.document["paths"].as_object().unwrap();
        paths.keys().cloned().collect()
    }

    /// Asks for this target, which is of this path, and for all that goes wrong with it.
    pub fn ask(&mut self, web: &Web, path: &str, target: &str) {
        let program = bearer(TOKEN);
        let wrong = match target.contains('?') {
            true => format!("{target}&nonsense=1"),
            false => format!("{target}?nonsense=1"),
        };
        // A stream has no end; the head of it is asked for.
        let is_stream = !self.responses(path)["200"]["content"]["text/event-stream"].is_null();
        if !is_stream {
            self.check(path, &web.get(target, &program));
        }
        let refused: &[(u16, &str, &str)] = &[
            (400, &wrong, &program),
            (401, target, ""),
            (
                403,
                target,
                &format!("{program}Sec-Fetch-Site: cross-site\r\n"),
            ),
            (421, target, &format!("{program}Host: evil.example\r\n")),
        ];
        for (code, target, headers) in refused {
            if !self.responses(path)[code.to_string()].is_null() {
                let answer = web.get(target, headers);
                assert_eq!(answer.code, *code, "{target}: {answer:?}");
                self.check(path, &answer);
            }
        }
    }

    /// Asserts that an answer is one that the description has for this path, and that its headers keep it where it
    /// belongs.
    pub fn check(&mut self, path: &str, answer: &WebAnswer) {
        let code = answer.code;
        let response = self.responses(path)[code.to_string()].clone();
        assert!(!response.is_null(), "{path} does not describe {answer:?}");
        assert_headers(answer);
        let kind = answer.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap();
        if let Some(content) = response["content"].as_object() {
            let schema = content.get(kind).map(|content| &content["schema"]);
            let schema = schema.unwrap_or_else(|| panic!("{path}: {answer:?}"));
            if kind == "application/json" {
                self.validate(schema, &answer.json(), &format!("{path} {code}"));
            }
        }
        self.seen.insert((path.to_owned(), code));
    }

    /// Asserts that this data is of a schema of the description.
    pub fn check_data(&self, schema: &str, data: &Value) {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        self.validate(&schema, data, "an event");
    }

    /// Asserts that everything described was answered, but for what `unasked` says.
    pub fn assert_all_asked(&self, unasked: &[u16]) {
        let described = self.paths().into_iter().flat_map(|path| {
            let responses = self.document["paths"][&path]["get"]["responses"].as_object();
            let codes = responses.unwrap().keys();
            let codes: Vec<u16> = codes.map(|code| code.parse().unwrap()).collect();
            codes.into_iter().map(move |code| (path.clone(), code))
        });
        let missing = described.filter(|(path, code)| {
            !unasked.contains(code) && !self.seen.contains(&(path.clone(), *code))
        });
        assert_eq!(missing.collect::<Vec<_>>(), []);
    }

    /// The responses of a path, by status, each in its place.
    fn responses(&self, path: &str) -> Value {
        let responses = &self.document["paths"][path]["get"]["responses"];
        let responses = responses.as_object();
        let responses = responses.unwrap_or_else(|| panic!("{path} is not described"));
        let resolved = responses.iter().map(|(code, response)| {
            let found = match response["$ref"].as_str() {
                Some(place) => self.document.pointer(place.trim_start_matches('#')),
                None => Some(response),
            };
            (code.clone(), found.unwrap().clone())
        });
        Value::Object(resolved.collect())
    }

    fn validate(&self, schema: &Value, data: &Value, what: &str) {
        let mut root = schema.clone();
        let mut components = self.document["components"].clone();
        if self.is_exact {
            close(&mut root);
            let schemas = components["schemas"].as_object_mut().unwrap();
            schemas.values_mut().for_each(close_within);
        }
        let keywords = root.as_object_mut().unwrap();
        keywords.insert("components".into(), components);
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource("api:/schema", root).unwrap();
        let mut compiled = Schemas::new();
        let index = compiler.compile("api:/schema", &mut compiled);
        let index = index.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        if let Err(error) = compiled.validate(data, index) {
            panic!("{what}: {error:#}\nin {data}");
        }
    }
}

/// Lets an object have no property but those that its schema names.
fn close(schema: &mut Value) {
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    let names_some = ["$ref", "properties", "allOf", "oneOf"];
    if names_some
        .iter()
        .any(|keyword| keywords.contains_key(*keyword))
    {
        let open = keywords.entry("unevaluatedProperties");
        open.or_insert(false.into());
    }
    close_within(schema);
}

/// The same of the values in it: what a schema is put together from must not close the whole.
fn close_within(schema: &mut Value) {
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    for (keyword, value) in keywords.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(of)) => Map::values_mut(of).for_each(close),
            ("items" | "additionalProperties", value) => close(value),
            ("allOf" | "oneOf", Value::Array(of)) => of.iter_mut().for_each(close_within),
            _ => {}
        }
    }
}

/// Asserts the headers that every response has: nothing of another server runs in it, and nobody keeps data.
pub fn assert_headers(answer: &WebAnswer) {
    let policy = answer.header("content-security-policy").unwrap_or_default();
    let cache = match answer.code {
        200 if answer.header("content-type") != Some("application/json") => "no-",
        _ => "no-store",
    };
    let is_guarded = policy.starts_with("default-src 'none'")
        && policy.contains("frame-ancestors 'none'")
        && !policy.contains("unsafe")
        && answer.header("x-content-type-options") == Some("nosniff")
        && answer.header("referrer-policy") == Some("no-referrer")
        && answer.header("x-frame-options") == Some("DENY");
    assert!(is_guarded, "{answer:?}");
    let kept = answer.header("cache-control").unwrap_or_default();
    let is_description = answer.body.contains("\"openapi\"") && kept == "no-cache";
    assert!(kept.starts_with(cache) || is_description, "{answer:?}");
}
