//! Sqlite databases, read without SQLite: no lock, no side file, no write, bounded memory.
//!
//! ```text
//! rpmdb.sqlite          pages; page 1 starts with the file header and holds the schema table
//! rpmdb.sqlite-wal      newer versions of pages: committed frames count         wal.rs
//! rpmdb.sqlite-journal  older ones, of a transaction that died                   journal.rs
//! Pager                 page number -> bytes, from one of these or the file  pager.rs, run.rs
//! walk                  table b-tree, row by row, overflow chains on demand     btree.rs
//! record                columns of a row                                        record.rs
//! listing               headers by rpm's own indexes                            listing.rs
//! schema                names of tables and columns -> root page and position   schema.rs, sql.rs
//! ```
//!
//! Only ordinary tables are read, never an index: those of rpm and dnf need no more. All of it
//! follows <https://sqlite.org/fileformat2.html>.

mod btree;
mod journal;
mod listing;
mod pager;
mod record;
mod run;
mod schema;
mod sql;
mod wal;

pub use journal::super_journal;
pub use record::Value;
pub use schema::Table;

use super::Checks;
use super::error::{Error, Place};
use super::header::Blob;
use super::source::ReadAt;
use btree::{Payload, walk};
use pager::Pager;
use std::ops::ControlFlow;

/// Longest record header that is looked at; tables here have a handful of columns.
const MAX_RECORD_HEADER: u64 = 64 * 1024;
/// Longest single value that [`SqliteDatabase::rows`] returns; longer ones come as NULL.
const MAX_VALUE: u64 = 1024 * 1024;

/// What counts beside the main file of a database.
#[derive(Debug)]
pub enum Beside<S> {
    /// Nothing.
    Nothing,
    /// The write-ahead log, `-wal`.
    Log(S),
    /// The rollback journal, `-journal`, of a writer that is no longer there.
    HotJournal(S),
}

/// A sqlite database over a byte source.
#[derive(Debug)]
pub struct SqliteDatabase<S> {
    pager: Pager<S>,
    tables: Vec<Table>,
}

impl<S: ReadAt> SqliteDatabase<S> {
    /// Reads the file header and the schema, with what is `beside` the file laid over it.
    ///
    /// # Errors
    /// Not a sqlite database, or a damaged one.
    pub fn open(main: S, beside: Beside<S>) -> Result<Self, Error> {
        let overlay = match beside {
            Beside::Log(log) => wal::overlay(log)?,
            Beside::HotJournal(journal) => journal::overlay(journal)?,
            Beside::Nothing => None,
        };
        let mut database = Self {
            pager: Pager::new(main, overlay)?,
            tables: Vec::new(),
        };
        database.tables = schema::read(&mut database)?;
        Ok(database)
    }

    /// The table of that name, upper and lower case alike.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables
            .iter()
            .find(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// Calls `visit` with the row number and the wanted `columns` of every row, in order of row
    /// numbers. A column that the table does not have is [`Value::Null`].
    ///
    /// # Errors
    /// The table is damaged, or `visit` said so.
    pub fn rows(
        &mut self,
        table: &Table,
        columns: &[&str],
        visit: &mut dyn FnMut(i64, &[Value]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let wanted: Vec<Option<usize>> = columns.iter().map(|name| table.column(name)).collect();
        self.rows_at(table.root, table.row_number, &wanted, visit)
    }

    fn rows_at(
        &mut self,
        root: u32,
        row_number: Option<usize>,
        wanted: &[Option<usize>],
        visit: &mut dyn FnMut(i64, &[Value]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let encoding = self.pager.encoding();
        let (mut header, mut bytes) = (Vec::new(), Vec::new());
        let mut values = vec![Value::Null; wanted.len()];
        walk(&mut self.pager, root, &mut |rowid, mut row| {
            values.fill(Value::Null);
            record_header(rowid, &mut row, &mut header)?;
            for (index, column) in record::columns(&header).enumerate() {
                let column = column.ok_or_else(|| bad_record(rowid))?;
                for (value, _) in values
                    .iter_mut()
                    .zip(wanted)
                    .filter(|(_, want)| **want == Some(index))
                {
                    *value = if row_number == Some(index) && column.serial == 0 {
                        // The row number itself is not stored a second time.
                        Value::Integer(rowid)
                    } else if column.length > MAX_VALUE {
                        Value::Null
                    } else {
                        let length = usize::try_from(column.length).unwrap_or(0);
                        row.copy(column.offset, length, &mut bytes)?;
                        if bytes.len() < length {
                            return Err(bad_record(rowid));
                        }
                        record::value(column.serial, &bytes, encoding)
                    };
                }
            }
            Ok(visit(rowid, &values))
        })
    }

    /// Calls `visit` with every row of rpm's table `Packages`, in order of numbers.
    pub(super) fn headers(
        &mut self,
        checks: Checks,
        visit: &mut super::Visit<'_>,
    ) -> Result<(), Error> {
        let (root, column) = self.packages()?;
        let mut header = Vec::new();
        walk(&mut self.pager, root, &mut |rowid, row| {
            Ok(visit_header(rowid, row, column, checks, &mut header, visit))
        })
    }

    /// Calls `visit` with the headers of these numbers; false when one of them is not there.
    pub(super) fn some_headers(
        &mut self,
        numbers: &[u32],
        visit: &mut super::Visit<'_>,
    ) -> Result<bool, Error> {
        let (root, column) = self.packages()?;
        let mut header = Vec::new();
        for number in numbers {
            self.pager.begin_walk();
            let rowid = i64::from(*number);
            let found = btree::find(&mut self.pager, root, rowid, &mut |row| {
                Ok(visit_header(
                    rowid,
                    row,
                    column,
                    Checks::Skip,
                    &mut header,
                    visit,
                ))
            })?;
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn packages(&self) -> Result<(u32, usize), Error> {
        let table = self.table("Packages").ok_or(Error::NoPackagesTable)?;
        let column = table.column("blob").ok_or(Error::NoPackagesTable)?;
        Ok((table.root, column))
    }

    /// The highest number that the table ever gave to a row; `None` when it never held one.
    ///
    /// # Errors
    /// The bookkeeping table is damaged.
    pub fn last_number(&mut self, table: &str) -> Result<Option<u64>, Error> {
        let Some(sequence) = self.table("sqlite_sequence").cloned() else {
            return Ok(None);
        };
        let mut last = None;
        self.rows(&sequence, &["name", "seq"], &mut |_, values| {
            if let [name, seq] = values
                && name.text() == Some(table)
            {
                last = seq.integer().and_then(|n| u64::try_from(n).ok());
            }
            ControlFlow::Continue(())
        })?;
        Ok(last.filter(|n| *n > 0))
    }
}

fn bad_record(row: i64) -> Error {
    Error::damaged(Place::Row(row), "is no sound record")
}

fn record_header<S: ReadAt>(
    rowid: i64,
    row: &mut Payload<'_, S>,
    into: &mut Vec<u8>,
) -> Result<(), Error> {
    let (length, _) = record::varint(row.local()).ok_or_else(|| bad_record(rowid))?;
    if length > MAX_RECORD_HEADER || length > row.length() {
        return Err(bad_record(rowid));
    }
    row.copy(0, usize::try_from(length).unwrap_or(0), into)
}

fn visit_header<S: ReadAt>(
    rowid: i64,
    mut row: Payload<'_, S>,
    column: usize,
    checks: Checks,
    header: &mut Vec<u8>,
    visit: &mut super::Visit<'_>,
) -> ControlFlow<()> {
    let number = u32::try_from(rowid).unwrap_or(u32::MAX);
    match header_blob(rowid, &mut row, column, header) {
        Ok((offset, length)) => {
            let check = match checks {
                Checks::Make => super::check(row.local()),
                Checks::Skip => 0,
            };
            visit(super::Item {
                number,
                length,
                check,
                blob: Ok(&mut Column {
                    row,
                    offset,
                    length,
                }),
            })
        }
        Err(error) => visit(super::Item {
            number,
            length: 0,
            check: 0,
            blob: Err(error),
        }),
    }
}

fn header_blob<S: ReadAt>(
    rowid: i64,
    row: &mut Payload<'_, S>,
    column: usize,
    header: &mut Vec<u8>,
) -> Result<(u64, u64), Error> {
    record_header(rowid, row, header)?;
    let column = record::columns(header)
        .nth(column)
        .flatten()
        .ok_or_else(|| bad_record(rowid))?;
    let end = column.offset.checked_add(column.length);
    if !column.is_blob() || end.is_none_or(|end| end > row.length()) {
        return Err(bad_record(rowid));
    }
    Ok((column.offset, column.length))
}

/// The bytes of one column of a row.
struct Column<'a, S> {
    row: Payload<'a, S>,
    offset: u64,
    length: u64,
}

impl<S: ReadAt> Blob for Column<'_, S> {
    fn length(&self) -> u64 {
        self.length
    }

    fn announce(&mut self, end: u64) {
        self.row
            .announce(self.offset.saturating_add(end.min(self.length)));
    }

    fn chunk(&mut self, offset: u64) -> Result<&[u8], Error> {
        let rest = self.length.checked_sub(offset).filter(|rest| *rest > 0);
        let rest = rest.ok_or(Error::damaged(Place::Offset(offset), "is past the header"))?;
        let chunk = self.row.chunk(self.offset + offset)?;
        let n = chunk.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        Ok(chunk.get(..n).unwrap_or_default())
    }
}
