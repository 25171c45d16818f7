//! Rows in aligned columns, for people.

use std::io::{self, Write};

/// Writes a head and rows; each column is as wide as its widest cell, two spaces apart.
pub(super) fn write<const N: usize>(
    head: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let rows: Vec<[String; N]> = rows.collect();
    let mut widths = head.map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = std::iter::once(head.map(str::to_owned));
    for row in head.chain(rows) {
        let cells = row.iter().zip(widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
