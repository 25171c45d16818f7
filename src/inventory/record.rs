//! What rows of all tables have in common, for code that is written once for all of them.

use super::{Bmc, Component, Domain, Drift, Pair, Rack, Row, RowKey};

/// A row of one table.
pub trait Record: Clone + PartialEq {
    /// Its key.
    fn key(&self) -> RowKey;

    /// The same as a row of any table.
    fn into_row(self) -> Row;

    /// The record in a row of its own table; `None` in a row of another.
    fn of(row: &mut Row) -> Option<&mut Self>;

    /// What people call it.
    fn label(&self) -> String;

    /// Not a tombstone.
    fn is_live(&self) -> bool {
        true
    }

    /// Manufacturer and serial number, as far as they are known.
    fn halves(&self) -> (Option<&str>, Option<&str>) {
        (None, None)
    }

    /// Its hardware, if it is known.
    fn pair(&self) -> Option<Pair<'_>> {
        let (manufacturer, serial) = self.halves();
        Pair::of(manufacturer, serial)
    }

    /// Makes it a tombstone, where its table has tombstones. `now` is RFC 3339.
    fn bury(&mut self, _now: &str) {}

    /// Takes its pair away, where its table has pairs.
    fn release_pair(&mut self) {}
}

/// Records that are boxed in a [`Row`] of the same name.
macro_rules! boxed {
    ($record:ident, $($rest:tt)*) => {
        impl Record for $record {
            fn key(&self) -> RowKey {
                self.key()
            }

            fn into_row(self) -> Row {
                Row::$record(Box::new(self))
            }

            fn of(row: &mut Row) -> Option<&mut Self> {
                match row {
                    Row::$record(record) => Some(record),
                    _ => None,
                }
            }

            fn label(&self) -> String {
                self.label()
            }

            $($rest)*
        }
    };
}

/// Records that become tombstones.
macro_rules! with_tombstones {
    ($record:ident, $($rest:tt)*) => {
        boxed! { $record,
            fn is_live(&self) -> bool {
                self.is_live()
            }

            fn bury(&mut self, now: &str) {
                self.deleted_at = Some(now.into());
            }

            $($rest)*
        }
    };
}

/// Records that become tombstones and have a pair.
macro_rules! with_pair {
    ($record:ident) => {
        with_tombstones! { $record,
            fn halves(&self) -> (Option<&str>, Option<&str>) {
                (self.manufacturer.as_deref(), self.serial_number.as_deref())
            }

            fn release_pair(&mut self) {
                (self.manufacturer, self.serial_number) = (None, None);
            }
        }
    };
}

with_pair!(Rack);
with_pair!(Component);
with_tombstones! { Domain, }
boxed! { Drift, }

impl Record for Bmc {
    fn key(&self) -> RowKey {
        RowKey::Bmc(self.mac)
    }

    fn into_row(self) -> Row {
        Row::Bmc(Box::new(self))
    }

    fn of(row: &mut Row) -> Option<&mut Self> {
        match row {
            Row::Bmc(bmc) => Some(bmc),
            _ => None,
        }
    }

    fn label(&self) -> String {
        self.mac.to_string()
    }
}
