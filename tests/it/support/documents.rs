//! What consumers are promised: documents are judged by `docs/schema`, keys by the document.

use afferent::clock::WallTime;
use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Every kind of document; each has a schema of that name.
pub const KINDS: [&str; 5] = ["report", "facts", "change", "state", "unchanged"];

/// Those that are events.
pub const EVENTS: [&str; 2] = ["change", "state"];

/// Facts that differ from one scan to the next although nothing changed.
const PASSING: [&str; 3] = ["last_scan_at", "scan_trigger", "report_digest"];

static JUDGE: LazyLock<Judge> = LazyLock::new(Judge::new);

/// Panics unless this is a document as its schema has it, without a property that the schema does not
/// name, under the key that it must have. A line of a file comes without a key.
pub fn judge(key: Option<&str>, document: &Value) {
    if let Err(said) = judged(key, document) {
        panic!("{said}\nin {key:?} {document}");
    }
}

/// The same, for whoever cannot panic.
pub fn judged(key: Option<&str>, document: &Value) -> Result<(), String> {
    as_consumers_read(document)?;
    JUDGE.validate(&JUDGE.exact, document)?;
    let key = key.or_else(|| document["key"].as_str());
    key.map_or(Ok(()), |key| key_fits(key, document))
}

/// Whether a consumer that validates takes it: it ignores properties that it does not know.
pub fn as_consumers_read(document: &Value) -> Result<(), String> {
    JUDGE.validate(&JUDGE.open, document)
}

/// The same of a message in a stream, where the time of the document may stand behind the key.
pub fn judge_message(id: Option<&str>, document: &Value) {
    let seen_at: WallTime = document["meta"]["seen_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let suffix = format!("/{}", seen_at.unix_ms());
    judge(
        id.map(|id| id.strip_suffix(&suffix).unwrap_or(id)),
        document,
    );
}

/// Whether `key` is the key of `document`.
pub fn key_fits(key: &str, document: &Value) -> Result<(), String> {
    let meta = &document["meta"];
    let vm = document["vm"]["id"].as_str().unwrap_or_default();
    let digest = meta["digest"].as_str().unwrap_or_default();
    let digest = digest.trim_start_matches("sha256:");
    let digest = digest.get(..16).unwrap_or_default();
    let mut wanted = format!("{vm}/{}/{}/{digest}", meta["epoch"], meta["generation"]);
    if kind(document) == "facts" {
        let facts = meta["facts"].as_object().ok_or("no facts")?;
        wanted = format!("{wanted}/facts/{}", hash_of(facts));
    }
    let said = match kind(document) {
        "unchanged" | "change" | "state" => document["key"].as_str().unwrap_or_default(),
        _ => key,
    };
    if EVENTS.contains(&kind(document)) {
        let seen_at = meta["seen_at"].as_str().ok_or("no time")?;
        let seen_at: WallTime = seen_at.parse().map_err(|_| "no time")?;
        let id = format!("{wanted}/{}/{}", kind(document), seen_at.unix_ms());
        if document["id"] != id.as_str() {
            return Err(format!("the id must be {id}, and is {}", document["id"]));
        }
    }
    match key == wanted && said == wanted {
        true => Ok(()),
        false => Err(format!("the key must be {wanted}, and is {key} ({said})")),
    }
}

/// Every document in a file: a line that is not whole was accepted by nobody.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let documents = whole
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    documents
        .inspect(|document| judge(None, document))
        .collect()
}

/// The text of a schema.
pub fn schema(kind: &str) -> Value {
    let path = docs().join(format!("schema/{kind}.schema.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The folder `docs`.
pub fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The first 8 hex digits of SHA-256 over the lines `name=value`, by name, of all facts but the passing.
fn hash_of(facts: &Map<String, Value>) -> String {
    let told = facts
        .iter()
        .filter(|(name, _)| !PASSING.contains(&name.as_str()));
    let told = told.map(|(name, value)| (name, value.as_str().unwrap_or_default()));
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    let lines = told.iter().map(|(name, value)| format!("{name}={value}\n"));
    let hash = Sha256::digest(lines.collect::<String>());
    hash.iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn kind(document: &Value) -> &str {
    match &document["type"] {
        Value::Null if document["unchanged"].is_null() => "report",
        Value::Null => "unchanged",
        kind => kind.as_str().unwrap_or_default(),
    }
}

/// The schema of each kind.
type ByKind = BTreeMap<&'static str, SchemaIndex>;

struct Judge {
    schemas: Schemas,
    /// As they are published.
    open: ByKind,
    /// Without room for properties that they do not name.
    exact: ByKind,
}

impl Judge {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        let mut compile = |address: String, text: Value| {
            compiler.add_resource(&address, text).unwrap();
            let compiled = compiler.compile(&address, &mut schemas);
            compiled.unwrap_or_else(|error| panic!("{address}: {error:#}"))
        };
        let (mut open, mut exact) = (ByKind::new(), ByKind::new());
        for kind in KINDS {
            let text = schema(kind);
            let address = text["$id"].as_str().unwrap().to_owned();
            let mut closed = text.clone();
            close(&mut closed);
            closed["$id"] = format!("{address}:exact").into();
            open.insert(kind, compile(address.clone(), text));
            exact.insert(kind, compile(format!("{address}:exact"), closed));
        }
        Self {
            schemas,
            open,
            exact,
        }
    }

    fn validate(&self, by_kind: &ByKind, document: &Value) -> Result<(), String> {
        let kind = kind(document);
        let schema = by_kind
            .get(kind)
            .ok_or_else(|| format!("no document is of the type {kind:?}"))?;
        let validated = self.schemas.validate(document, *schema);
        validated.map_err(|error| format!("{error:#}"))
    }
}

/// Lets no object have a property that its schema does not name.
fn close(schema: &mut Value) {
    if let Some(keywords) = schema.as_object_mut() {
        if keywords.get("properties").is_some_and(Value::is_object) {
            let open = keywords.entry("additionalProperties");
            open.or_insert(false.into());
        }
        keywords.values_mut().for_each(close);
    }
    if let Some(several) = schema.as_array_mut() {
        several.iter_mut().for_each(close);
    }
}

/// Names of the packages in a bill of materials, sorted.
pub fn packages_of_bom(bom: &Value) -> Vec<String> {
    assert_eq!(bom["bomFormat"], "CycloneDX");
    let components = bom["components"].as_array().unwrap().iter();
    let packages = components.filter(|it| it["type"] == "library");
    let mut names: Vec<String> = packages
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}
