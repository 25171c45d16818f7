//! The response to each question about the inventory.

use super::Questions;
use super::request::{MirrorCall, ROUTES};
use crate::clock;
use crate::listen::HttpResponse;
use crate::mirror::query::{self, AuditView, DriftView};
use crate::mirror::{InventoryError, generation};
use crate::store::Snapshot;
use crate::web::routes::Route;
use crate::web::{Beside, PageFiles, WebApp, WebHealth, answer};
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// Questions that are answered at the same time, each on a thread beside the loop.
const QUESTIONS: usize = 2;

/// The page.
const FILES: PageFiles = PageFiles {
    index: include_str!("page/index.html"),
    script: include_str!("page/app.js"),
    style: include_str!("page/style.css"),
    openapi: include_str!("openapi.json"),
};

/// Answers questions about the inventory.
pub(super) struct MirrorApp {
    questions: Questions,
    beside: Beside,
}

impl MirrorApp {
    pub(super) fn new(questions: Questions, health: Arc<WebHealth>) -> Self {
        Self {
            beside: Beside::new(questions.blocking, QUESTIONS, health),
            questions,
        }
    }
}

impl WebApp for MirrorApp {
    type Call = MirrorCall;

    fn routes(&self) -> &'static [Route<MirrorCall>] {
        ROUTES
    }

    fn files(&self) -> &'static PageFiles {
        &FILES
    }

    async fn answer(&self, call: MirrorCall, _: &Parts, _: Instant) -> HttpResponse {
        let questions = self.questions.clone();
        self.beside.run(move || respond(&questions, &call)).await
    }
}

fn respond(questions: &Questions, call: &MirrorCall) -> HttpResponse {
    let snapshot = questions.snapshot.get().map_err(InventoryError::from);
    let made = snapshot.and_then(|snapshot| {
        let made = make(questions, call, &snapshot)?;
        let generation = generation(&snapshot)?;
        Ok(made.map(|mut made| {
            made["generation"] = generation.into();
            made
        }))
    });
    match made {
        Ok(Some(made)) => answer::data(StatusCode::OK, &made),
        Ok(None) => answer::error(StatusCode::NOT_FOUND, "there is no such rack"),
        Err(error) => answer::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// The answer from one commit; `None`: there is no such row.
fn make(
    questions: &Questions,
    call: &MirrorCall,
    snapshot: &Snapshot,
) -> Result<Option<Value>, InventoryError> {
    Ok(Some(match call {
        MirrorCall::Racks { after, limit } => {
            let by_component = questions.by_component(snapshot)?;
            let page = query::racks(snapshot, &by_component, *after, *limit)?;
            json!({ "racks": page.racks, "next": page.next })
        }
        MirrorCall::Rack { name } => {
            let by_component = questions.by_component(snapshot)?;
            return query::rack(snapshot, &by_component, name);
        }
        MirrorCall::Drift { filter, after } => {
            let rows = query::drifts_by_age(snapshot, filter, after.as_ref())?;
            let last = rows.last().filter(|_| filter.limit == Some(rows.len()));
            let next = last.map(|last| last.age().to_string());
            json!({ "drift": rows.iter().map(drift).collect::<Vec<_>>(), "next": next })
        }
        MirrorCall::Audit { filter } => {
            let page = query::newest_audit(snapshot, filter)?;
            let rows: Vec<&AuditView> = page.rows.iter().collect();
            json!({ "audit": rows, "next": page.next })
        }
        MirrorCall::Withheld { limit } => {
            json!({ "withheld": questions.status.withheld(*limit, &questions.reach) })
        }
        MirrorCall::Status => {
            let mut status = questions.status.show();
            status["pulls"] = questions.status.pulls();
            status["rows"] = questions.metrics.rows_shown();
            status["drift"] = questions.metrics.drift_shown();
            status["now"] = clock::wall_now().to_string().into();
            status
        }
    }))
}

/// A drift row with what people call its component and rack.
fn drift(row: &DriftView) -> Value {
    let mut shown = row.columns.clone();
    shown["name"] = row.name.as_str().into();
    shown["rack"] = row.rack.as_ref().map_or(
        Value::Null,
        |rack| json!({ "id": rack.id, "name": rack.name }),
    );
    shown
}
