//! A row of the log and the run that it is of, as they are read and as they are stored.

use crate::inventory::Row as InventoryRow;
use crate::mirror::table::row::{decode_row, encode_row};
use crate::store::TxError;
use crate::store::codec::first_version;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use uuid::Uuid;

/// One run that changed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditRun {
    /// Names the run.
    pub id: Uuid,
    /// RFC 3339.
    pub time: String,
    /// Where the change came from; never holds a secret.
    pub source: String,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditRow {
    /// Type the change was made for.
    pub kind: Cow<'static, str>,
    /// Table of the row.
    pub table: Cow<'static, str>,
    /// What was done.
    pub op: Cow<'static, str>,
    /// Id or address of the row.
    pub row: String,
    /// What people call the row.
    pub key: String,
    /// The column, unless it is about the row as a whole.
    pub field: Option<String>,
    /// JSON text of the old value.
    pub old: Option<String>,
    /// JSON text of the new value.
    pub new: Option<String>,
    /// Why.
    pub reason: Cow<'static, str>,
}

impl AuditRow {
    /// Whether it holds the last copy of a row that is gone for good.
    pub(crate) fn is_hard_delete(&self) -> bool {
        self.field.is_none()
            && self.old.is_some()
            && self.new.is_none()
            && self.table != "component_drift"
    }
}

first_version!(AuditRun);

/// A row of the log as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StoredAuditRow {
    /// All of it.
    Whole(AuditRow),
    /// A row came: what is said of it is in the row itself.
    Came {
        /// Type the row came for.
        kind: Cow<'static, str>,
        /// What was done.
        op: Cow<'static, str>,
        /// Why.
        reason: Cow<'static, str>,
        /// Table of the row.
        table: Cow<'static, str>,
        /// The row, as its table has it.
        bytes: Vec<u8>,
    },
}

impl StoredAuditRow {
    /// That a row came.
    pub(crate) fn came(
        kind: &'static str,
        op: &'static str,
        reason: &'static str,
        row: &InventoryRow,
    ) -> Result<Self, TxError> {
        Ok(Self::Came {
            kind: kind.into(),
            op: op.into(),
            reason: reason.into(),
            table: row.key().table().into(),
            bytes: encode_row(row)?,
        })
    }

    /// Type the change was made for.
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Whole(AuditRow { kind, .. }) | Self::Came { kind, .. } => kind,
        }
    }

    /// What was done.
    pub(crate) fn op(&self) -> &str {
        match self {
            Self::Whole(AuditRow { op, .. }) | Self::Came { op, .. } => op,
        }
    }

    /// The row of the log.
    pub(crate) fn into_row(self) -> Result<AuditRow, TxError> {
        let (kind, op, reason, table, bytes) = match self {
            Self::Whole(row) => return Ok(row),
            Self::Came {
                kind,
                op,
                reason,
                table,
                bytes,
            } => (kind, op, reason, table, bytes),
        };
        let row = decode_row(&table, &bytes)?;
        Ok(AuditRow {
            kind,
            table,
            op,
            row: row.key().to_string(),
            key: row.label(),
            field: None,
            old: None,
            new: Some(row.text()),
            reason,
        })
    }
}

impl From<AuditRow> for StoredAuditRow {
    fn from(row: AuditRow) -> Self {
        Self::Whole(row)
    }
}
