//! Tables of a database and the positions of their columns.
//!
//! The schema is table 1: one row for every table and index, with the SQL text that made it. Of
//! that text only the column names and the one INTEGER PRIMARY KEY matter, which needs no parser
//! of SQL: columns are separated by commas outside of parentheses and quotes.

use super::{Database, Value};
use crate::rpmdb::error::Error;
use crate::rpmdb::source::ReadAt;
use std::ops::ControlFlow;

/// Entries of a schema that are looked at; rpm has about 40, dnf fewer.
const MAX_ENTRIES: usize = 10_000;

/// An ordinary table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// As created.
    pub name: String,
    pub(super) root: u32,
    columns: Vec<String>,
    /// Position of the column that stands for the row number.
    pub(super) row_number: Option<usize>,
}

impl Table {
    /// Position of a column, upper and lower case alike.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.eq_ignore_ascii_case(name))
    }
}

pub(super) fn read<S: ReadAt>(database: &mut Database<S>) -> Result<Vec<Table>, Error> {
    // type, name, tbl_name, rootpage, sql
    let wanted = [Some(0), Some(1), Some(3), Some(4)];
    let mut tables = Vec::new();
    database.rows_at(1, None, &wanted, &mut |_, values| {
        if let [kind, Value::Text(name), root, Value::Text(sql)] = values
            && kind.text() == Some("table")
            && let Some(root) = root.integer().and_then(|n| u32::try_from(n).ok())
        {
            tables.extend(table(name, root, sql));
        }
        if tables.len() < MAX_ENTRIES {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(tables)
}

/// `None` for kinds of tables that are stored in another way.
fn table(name: &str, root: u32, sql: &str) -> Option<Table> {
    let body = sql.split_once('(')?.1;
    let mut table = Table {
        name: name.to_owned(),
        root,
        columns: Vec::new(),
        row_number: None,
    };
    let (definitions, after) = split(body);
    if root == 0 || after.to_ascii_uppercase().contains("WITHOUT ROWID") {
        return None;
    }
    for definition in definitions {
        let (column, rest) = first_word(definition.trim_start());
        let constraint = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"];
        let bare = !definition.trim_start().starts_with(['"', '\'', '`', '[']);
        if bare && constraint.iter().any(|c| column.eq_ignore_ascii_case(c)) {
            continue;
        }
        let words: Vec<String> = rest
            .split_whitespace()
            .map(str::to_ascii_uppercase)
            .collect();
        let primary = words.iter().position(|word| word == "PRIMARY");
        let typed = words.first().is_some_and(|word| {
            word.trim_matches(|c| matches!(c, '"' | '\'' | '`' | '[' | ']')) == "INTEGER"
        });
        if typed && primary.is_some() && !words.iter().any(|word| word.starts_with("DESC")) {
            table.row_number = Some(table.columns.len());
        }
        table.columns.push(column.to_owned());
    }
    Some(table)
}

/// Cuts at the commas of the outermost level; also what follows the closing parenthesis.
fn split(body: &str) -> (Vec<&str>, &str) {
    let (mut depth, mut start, mut quote) = (0u32, 0, None);
    let mut parts = Vec::new();
    for (at, c) in body.char_indices() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '[') => quote = Some(']'),
            (None, '(') => depth = depth.saturating_add(1),
            (None, ')') if depth == 0 => {
                parts.extend(body.get(start..at));
                return (parts, body.get(at + 1..).unwrap_or_default());
            }
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.extend(body.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(body.get(start..));
    (parts, "")
}

/// The first word, without its quotes, and the rest.
fn first_word(text: &str) -> (&str, &str) {
    let quote = match text.chars().next() {
        Some('[') => Some(']'),
        Some(c @ ('"' | '\'' | '`')) => Some(c),
        _ => None,
    };
    match quote {
        Some(end) => {
            let inner = text.get(1..).unwrap_or_default();
            inner.split_once(end).unwrap_or((inner, ""))
        }
        None => text
            .find(|c: char| c.is_whitespace())
            .map_or((text, ""), |at| text.split_at(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_in_the_sql_that_rpm_and_dnf_write() {
        let packages = table(
            "Packages",
            2,
            "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)",
        )
        .unwrap();
        assert_eq!(packages.column("hnum"), Some(0));
        assert_eq!(packages.column("blob"), Some(1));
        assert_eq!(packages.row_number, Some(0));
        let items = table(
            "trans_item",
            3,
            "CREATE TABLE trans_item (\n  id INTEGER PRIMARY KEY AUTOINCREMENT,\n  \"repo_id\" INTEGER REFERENCES repo(id),\n  kind DECIMAL(10,5), state VARCHAR(2) DEFAULT 'a,b)',\n  FOREIGN KEY (repo_id) REFERENCES repo(id))",
        )
        .unwrap();
        assert_eq!(items.column("repo_id"), Some(1));
        assert_eq!(items.column("state"), Some(3));
        assert_eq!(items.column("FOREIGN"), None);
        assert_eq!(items.row_number, Some(0));
    }

    #[test]
    fn a_table_without_row_numbers_is_not_one_of_ours() {
        assert_eq!(
            table("t", 2, "CREATE TABLE t(a TEXT PRIMARY KEY) WITHOUT ROWID"),
            None
        );
    }
}
