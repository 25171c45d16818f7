//! `afferent pull`: one request to an agent, for people.

use super::bill_of_materials;
use super::native;
use super::options::parse;
use super::output::Output;
use super::{CONFIGURATION, FAILED, USAGE, complain, format, note};
use crate::clock::{self, WallTime};
use crate::report::{Epoch, Generation, Report, ReportKey, Token, Trigger, facts};
use crate::sbom::{BomFormat, Subject};
use crate::transport::{
    AgentName, ClientTls, DialAddress, ReadError, TlsFiles, dial, explain, read_frame, write_frame,
};
use crate::visible::{Foreign, visible};
use crate::wire::MAX_RESPONSE;
use crate::wire::document::{MetaDocument, ReportDocument};
use crate::wire::message::ErrorCode;
use crate::wire::meta::Meta;
use crate::wire::request::{self, Knowledge};
use crate::wire::response::{Payload, Response};
use argh::{FromArgValue, FromArgs};
use serde::Serialize;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// For everything but the time that the agent was asked to wait.
const DEADLINE: Duration = Duration::from_secs(30);

/// Between two questions to an agent that cannot wait.
const POLL: Duration = Duration::from_secs(2);

/// Ask an agent for its report, once.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "pull",
    example = "afferent pull vsock:3:818 --known 77:12 --wait 30s"
)]
pub(super) struct PullArgs {
    /// where the agent is: vsock:CID:PORT, unix:PATH or hybrid:PATH:PORT
    #[argh(positional, arg_name = "ADDR", from_str_fn(parse::dial))]
    address: DialAddress,
    /// report that is known already, as EPOCH:GENERATION or as the agent's token: the answer is short if
    /// it is still that
    #[argh(option, arg_name = "EPOCH:GENERATION|TOKEN")]
    known: Option<KnownReport>,
    /// wait this long for another report than the known one, 0s to 24h; an agent that cannot wait is asked every 2 s
    #[argh(option, arg_name = "DURATION", from_str_fn(wait))]
    wait: Option<Duration>,
    /// our certificate for mutual TLS (PEM)
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    tls_cert: Option<PathBuf>,
    /// private key of that certificate (PEM)
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    tls_key: Option<PathBuf>,
    /// authorities whose certificates agents must show (PEM)
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    tls_ca: Option<PathBuf>,
    /// id: the agent's certificate names the guest (DNS name GUEST_ID.afferent), which must be the one that answers
    #[argh(option, arg_name = "id", from_str_fn(parse::any))]
    tls_name_from: Option<AgentName>,
    /// table, json, or a bill of materials: cyclonedx (1.6) or spdx (2.3), both JSON (default: table)
    #[argh(
        option,
        arg_name = "table|json|cyclonedx|spdx",
        default = "Format::Table"
    )]
    format: Format,
    /// write to this file, which is replaced once all is there (default: standard output)
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    output: Option<PathBuf>,
}

/// How long an agent may be asked to wait.
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

fn wait(text: &str) -> Result<Duration, String> {
    parse::duration(WAIT)(text)
}

#[derive(Clone, Copy)]
enum Format {
    Table,
    Json,
    Bom(BomFormat),
}

impl FromArgValue for Format {
    fn from_arg_value(value: &str) -> Result<Self, String> {
        match value {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "cyclonedx" => Ok(Self::Bom(BomFormat::CycloneDx)),
            "spdx" => Ok(Self::Bom(BomFormat::Spdx)),
            _ => Err("must be table, json, cyclonedx or spdx".into()),
        }
    }
}

/// The report that is known already.
#[derive(Clone, Debug)]
enum KnownReport {
    Pair(ReportKey),
    Token(String),
}

impl FromArgValue for KnownReport {
    fn from_arg_value(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(key) => Ok(Self::Pair(key)),
            Err(_) if text.is_empty() => Err("neither EPOCH:GENERATION nor a token".into()),
            Err(_) => Ok(Self::Token(text.to_owned())),
        }
    }
}

impl PullArgs {
    fn request(&self, wait: Option<Duration>) -> Vec<u8> {
        let pair = |key: ReportKey| Knowledge {
            generation: key.generation.get(),
            epoch: key.epoch_or_zero(),
            ..Knowledge::default()
        };
        let known = match &self.known {
            None => Knowledge::default(),
            Some(KnownReport::Pair(key)) => pair(*key),
            Some(KnownReport::Token(token)) => match (wait, token.parse::<Token>()) {
                // A request to wait names a report by its key.
                (Some(_), Ok(token)) => pair(token.key),
                _ => Knowledge {
                    token,
                    ..Knowledge::default()
                },
            },
        };
        request::encode(known, wait)
    }
}

/// What came back, and is worth showing.
struct Answer {
    meta: Meta,
    /// `None`: it is still the known one.
    report: Option<Report>,
}

pub(super) fn run(args: &PullArgs) -> u8 {
    let tls = match (&args.tls_cert, &args.tls_key, &args.tls_ca) {
        (None, None, None) if args.tls_name_from.is_some() => {
            return complain(
                USAGE,
                "--tls-name-from needs --tls-cert, --tls-key and --tls-ca",
            );
        }
        (None, None, None) => None,
        (Some(cert), Some(key), Some(ca)) => {
            let (cert, key, ca) = (cert.clone(), key.clone(), ca.clone());
            let name = args.tls_name_from.unwrap_or_default();
            match ClientTls::load_for(TlsFiles { cert, key, ca }, name) {
                Ok(tls) => Some(tls),
                Err(error) => return complain(FAILED, &error.to_string()),
            }
        }
        _ => {
            return complain(
                USAGE,
                "TLS needs --tls-cert, --tls-key and --tls-ca together",
            );
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answer = match runtime {
        Ok(runtime) => runtime.block_on(pull(args, tls.as_ref())),
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(answer) => show(args, &answer),
        Err(error) => complain(FAILED, &format!("{}: {error}", args.address)),
    }
}

fn show(args: &PullArgs, answer: &Answer) -> u8 {
    let output = Output::new(args.output.as_deref());
    match args.format {
        Format::Table => output.lines(|out| table(answer, out)),
        Format::Json => output.data(|out| json(answer, out)),
        Format::Bom(format) => match bill(args, answer, format) {
            Ok(document) => output.data(|out| out.write_all(&document)),
            Err((code, error)) => complain(code, &error),
        },
    }
}

/// The bill of materials of the guest, which is called by its id: agents do not say its host name.
fn bill(args: &PullArgs, answer: &Answer, format: BomFormat) -> Result<Vec<u8>, (u8, String)> {
    let at = bill_of_materials::time().map_err(|error| (CONFIGURATION, error))?;
    let Some(report) = &answer.report else {
        let what = format!("{}: the report is still the known one", args.address);
        return Err((
            FAILED,
            format!("{what}; leave --known out for a bill of materials"),
        ));
    };
    let address = args.address.to_string();
    let guest_id = answer.meta.facts.get(facts::GUEST_ID);
    let subject = Subject {
        report,
        digest: report.digest(),
        host: guest_id.unwrap_or(&address),
        at: at.or(generated_at(&answer.meta)),
        id_like: &[],
        details: &[],
    };
    Ok(bill_of_materials::write(&subject, format))
}

async fn pull(args: &PullArgs, tls: Option<&ClientTls>) -> Result<Answer, String> {
    let (mut body, mut guest) = exchange(args, tls, args.wait).await?;
    if let Some(wait) = args.wait
        && knows_no_wait(&body)
    {
        // As StackRox's own agent.
        let every = POLL.as_secs();
        note(&format!(
            "{}: the agent does not know wait_report: it is asked every {every} s instead",
            args.address
        ));
        (body, guest) = poll(args, tls, wait).await?;
    }
    let response =
        Response::decode(&body).map_err(|error| format!("the answer is none: {error}"))?;
    let meta = response.meta;
    // An error has no facts, and is nobody's report.
    if args.tls_name_from.is_some() && matches!(response.payload, Some(Payload::Report(_))) {
        check_guest(&meta, guest.as_deref())?;
    }
    let report = match response.payload {
        Some(Payload::Report(answer)) if answer.unchanged => None,
        Some(Payload::Report(answer)) => {
            let index = answer.index.ok_or("the answer has no report in it")?;
            let report = index.into_report(facts::content_of(&meta.facts));
            Some(report.map_err(|error| error.to_string())?.to_report())
        }
        Some(Payload::Error(error)) => {
            let code = ErrorCode::try_from(error.code).unwrap_or(ErrorCode::Unspecified);
            return Err(format!(
                "{}: {}",
                code.name(),
                Foreign::from(error.message.as_str())
            ));
        }
        Some(Payload::Synced { .. }) => {
            return Err("the agent answered a push of a mapping, which nobody sent".into());
        }
        None => return Err("the answer is empty".into()),
    };
    Ok(Answer { meta, report })
}

/// Whether the guest that the certificate is made out to is the one that answers.
fn check_guest(meta: &Meta, certified: Option<&str>) -> Result<(), String> {
    let said = meta.facts.get(facts::GUEST_ID).map(String::as_str);
    match (said, certified) {
        (Some(said), Some(certified)) if said.eq_ignore_ascii_case(certified) => Ok(()),
        (said, certified) => Err(format!(
            "the guest says that it is {}, and its certificate is made out to {}",
            Foreign::from(said.unwrap_or("nobody")),
            certified.unwrap_or("nobody"),
        )),
    }
}

/// One request, the body of its answer, and the guest that the agent's certificate names.
async fn exchange(
    args: &PullArgs,
    tls: Option<&ClientTls>,
    wait: Option<Duration>,
) -> Result<(Vec<u8>, Option<String>), String> {
    let allowed = DEADLINE + wait.unwrap_or_default();
    let exchange = async {
        let mut stream = dial(&args.address)
            .await
            .map_err(|error| explain(&args.address, &error))?;
        if let Some(tls) = tls {
            let shaken = tls.connect(stream).await;
            stream = shaken.map_err(|error| format!("TLS: {error}"))?;
        }
        write_frame(&mut stream, &args.request(wait))
            .await
            .map_err(|error| error.to_string())?;
        let body = read_frame(&mut stream, MAX_RESPONSE)
            .await
            .map_err(|error| no_answer(&error))?;
        Ok((body, stream.certified_guest()))
    };
    tokio::time::timeout(allowed, exchange)
        .await
        .map_err(|_| format!("no answer within {} s", allowed.as_secs()))?
}

/// Asks again and again until there is another report than the known one, or the time is over.
async fn poll(
    args: &PullArgs,
    tls: Option<&ClientTls>,
    wait: Duration,
) -> Result<(Vec<u8>, Option<String>), String> {
    let until = clock::now() + wait;
    loop {
        let answer = exchange(args, tls, None).await?;
        let left = until.saturating_duration_since(clock::now());
        if left.is_zero() || !is_worth_a_wait(&answer.0) {
            return Ok(answer);
        }
        tokio::time::sleep(POLL.min(left)).await;
    }
}

/// Whether an answer is one that another may follow: nothing new, or no report yet.
fn is_worth_a_wait(body: &[u8]) -> bool {
    match Response::decode(body).ok().and_then(|r| r.payload) {
        Some(Payload::Report(answer)) => answer.unchanged,
        Some(Payload::Error(error)) => matches!(
            ErrorCode::try_from(error.code),
            Ok(ErrorCode::Busy | ErrorCode::NotReady)
        ),
        Some(Payload::Synced { .. }) | None => false,
    }
}

/// Why there is no answer. An alert of TLS in place of one is told as such.
fn no_answer(error: &ReadError) -> String {
    match error {
        ReadError::Frame(error) if error.is_tls_alert() => {
            "the agent wants TLS: give --tls-cert, --tls-key and --tls-ca".into()
        }
        error => format!("the agent gave no answer: {error}"),
    }
}

/// Whether the agent refuses a request to wait because it has no such method.
fn knows_no_wait(body: &[u8]) -> bool {
    let payload = Response::decode(body).ok().and_then(|r| r.payload);
    matches!(payload, Some(Payload::Error(error)) if error.code == ErrorCode::UnknownMethod as i32)
}

fn table(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    let meta = &answer.meta;
    let state = if answer.report.is_some() {
        ""
    } else {
        ", unchanged"
    };
    match meta.has_only_token() {
        true => writeln!(out, "report {}{state}", visible(&meta.token))?,
        false => writeln!(out, "report {}:{}{state}", meta.epoch, meta.generation)?,
    }
    writeln!(
        out,
        "made at {} by afferent {}",
        generated_at(meta),
        visible(&meta.agent_version)
    )?;
    for (name, value) in &meta.facts {
        writeln!(out, "{} {}", visible(name), visible(value))?;
    }
    match &answer.report {
        None => Ok(()),
        Some(report) => {
            writeln!(out)?;
            format::table(report, out)
        }
    }
}

fn json(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Pulled<'a> {
        unchanged: bool,
        meta: Option<MetaDocument<'a>>,
        report: Option<ReportDocument<'a>>,
    }
    let pulled = Pulled {
        unchanged: answer.report.is_none(),
        meta: meta_document(answer),
        report: answer.report.as_ref().map(ReportDocument::from),
    };
    serde_json::to_writer_pretty(&mut *out, &pulled)?;
    writeln!(out)
}

/// `None` for a foreign agent that names neither a generation nor, with an empty answer, a digest.
fn meta_document(answer: &Answer) -> Option<MetaDocument<'_>> {
    let meta = &answer.meta;
    let key = ReportKey {
        epoch: Epoch::new(meta.epoch),
        generation: Generation::new(meta.generation)?,
    };
    let said = meta.facts.get(facts::REPORT_DIGEST);
    let digest = said
        .and_then(|digest| digest.parse().ok())
        .or_else(|| answer.report.as_ref().map(Report::digest))?;
    let trigger = Trigger::from_fact(meta.facts.get(facts::SCAN_TRIGGER).map(String::as_str));
    let generated_at = generated_at(meta);
    Some(MetaDocument::new(
        &meta.agent_version,
        key,
        digest,
        trigger,
        generated_at,
        &meta.facts,
    ))
}

fn generated_at(meta: &Meta) -> WallTime {
    meta.generated_at.map(WallTime::from).unwrap_or_default()
}
