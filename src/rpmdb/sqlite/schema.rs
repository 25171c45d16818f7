//! Tables of a database and the positions of their columns.
//!
//! The schema is table 1: one row for every table and index, with the SQL text that made it. Of
//! that text only the names of the columns matter, and which of them stands for the row number:
//! the one INTEGER PRIMARY KEY, whether the column or the table says so.
//! <https://sqlite.org/lang_createtable.html#rowid>

use super::sql::{Token, tokens};
use super::{SqliteDatabase, Value};
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

pub(super) fn read<S: ReadAt>(database: &mut SqliteDatabase<S>) -> Result<Vec<Table>, Error> {
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
    let tokens: Vec<Token<'_>> = tokens(sql).collect();
    let begin = tokens.iter().position(|token| *token == Token::Open)?;
    let (definitions, after) = split(tokens.get(begin + 1..)?);
    let unnumbered = after
        .iter()
        .zip(after.iter().skip(1))
        .any(|(a, b)| a.is("WITHOUT") && b.is("ROWID"));
    if root == 0 || unnumbered {
        return None;
    }
    let mut table = Table {
        name: name.to_owned(),
        root,
        columns: Vec::new(),
        row_number: None,
    };
    let (mut integers, mut primary) = (Vec::new(), None);
    for definition in definitions {
        let [first, rest @ ..] = definition else {
            continue;
        };
        if CONSTRAINTS.iter().any(|word| first.is(word)) {
            primary = primary.or_else(|| primary_key_of_table(definition));
            continue;
        }
        let integer = is_integer(rest);
        if integer && is_primary_key(rest) {
            table.row_number = Some(table.columns.len());
        }
        integers.push(integer);
        table.columns.extend(first.name().map(str::to_owned));
    }
    let primary = primary.and_then(|name| table.column(name));
    if primary.is_some_and(|place| integers.get(place) == Some(&true)) {
        table.row_number = primary;
    }
    Some(table)
}

/// Words that begin a constraint where a column could be.
const CONSTRAINTS: [&str; 5] = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"];
/// Words that end the type of a column, with those that begin a constraint.
const AFTER_TYPE: [&str; 7] = [
    "NOT",
    "NULL",
    "DEFAULT",
    "COLLATE",
    "REFERENCES",
    "GENERATED",
    "AS",
];

/// Cuts at the commas of the outermost level; also what follows the closing parenthesis.
fn split<'a, 'b>(body: &'b [Token<'a>]) -> (Vec<&'b [Token<'a>]>, &'b [Token<'a>]) {
    let (mut depth, mut start) = (0u32, 0);
    let mut parts = Vec::new();
    for (at, token) in body.iter().enumerate() {
        match token {
            Token::Open => depth = depth.saturating_add(1),
            Token::Close if depth == 0 => {
                parts.extend(body.get(start..at));
                return (parts, body.get(at + 1..).unwrap_or_default());
            }
            Token::Close => depth -= 1,
            Token::Comma if depth == 0 => {
                parts.extend(body.get(start..at));
                start = at + 1;
            }
            Token::Word(_) | Token::Quoted(_) | Token::Comma => {}
        }
    }
    parts.extend(body.get(start..));
    (parts, &[])
}

/// Whether the type of a column is INTEGER and nothing else, as a row number must be.
fn is_integer(definition: &[Token<'_>]) -> bool {
    let mut words = CONSTRAINTS.iter().chain(&AFTER_TYPE);
    matches!(definition, [kind, rest @ ..]
        if kind.name().is_some_and(|kind| kind.eq_ignore_ascii_case("INTEGER"))
            && rest.first().is_none_or(|next| words.any(|word| next.is(word))))
}

/// Whether a column says that it is the primary key. In descending order it is not the row number.
fn is_primary_key(definition: &[Token<'_>]) -> bool {
    let primary = definition.iter().position(|token| token.is("PRIMARY"));
    let order = primary.and_then(|at| definition.get(at + 2));
    primary.is_some() && !order.is_some_and(|order| order.is("DESC"))
}

/// The column that a constraint makes the primary key alone.
fn primary_key_of_table<'a>(constraint: &'a [Token<'_>]) -> Option<&'a str> {
    let primary = constraint.iter().position(|token| token.is("PRIMARY"))?;
    match constraint.get(primary + 1..)? {
        [key, Token::Open, column, rest @ ..] if key.is("KEY") && !rest.contains(&Token::Comma) => {
            column.name()
        }
        _ => None,
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
        for sql in [
            "CREATE TABLE t(a TEXT PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE t(a TEXT PRIMARY KEY)STRICT , without /* so */\n rowid",
        ] {
            assert_eq!(table("t", 2, sql), None, "{sql}");
        }
    }

    #[test]
    fn the_row_number_is_an_integer_that_alone_is_the_primary_key() {
        let row_number = |columns: &str| {
            let sql = format!("CREATE TABLE \"t(\"({columns})");
            table("t", 2, &sql).unwrap().row_number
        };
        for columns in [
            "a, \"id\" INTEGER, PRIMARY KEY(\"id\" AUTOINCREMENT)",
            "a, id integer, CONSTRAINT pk PRIMARY KEY (ID DESC)",
            "a, id INTEGER NOT NULL PRIMARY KEY ASC",
            "a, /* b, c */ id INTEGER -- x, y\n CONSTRAINT x PRIMARY KEY ON CONFLICT ABORT",
            "a, [id] 'INTEGER' PRIMARY KEY, b",
            "a DEFAULT (','), id INTEGER PRIMARY KEY",
        ] {
            assert_eq!(row_number(columns), Some(1), "{columns}");
        }
        for columns in [
            "a, id INTEGER PRIMARY KEY DESC",
            "a, id INT PRIMARY KEY",
            "a, id UNSIGNED INTEGER PRIMARY KEY",
            "a, id INTEGER UNSIGNED PRIMARY KEY",
            "a, id INTEGER, PRIMARY KEY(id, a)",
            "a, id INTEGER, FOREIGN KEY(id) REFERENCES b(id)",
            "a, id TEXT, PRIMARY KEY(id)",
        ] {
            assert_eq!(row_number(columns), None, "{columns}");
        }
    }
}
