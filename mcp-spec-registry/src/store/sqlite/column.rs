//! How the fields of a row stand in columns: times as RFC 3339, digests as text, lists and documents as JSON.

use rusqlite::{
    Row,
    types::{Value, ValueRef},
};
use serde::{Serialize, de::DeserializeOwned};
use shared::digest::Digest;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    run::{
        Assurance, CheckPhase, CheckVerdict, CheckpointKind, CheckpointState, ReturnTo, RunState,
        Verdict,
    },
    store::{SpecificationStatus, StoreError, TokenKind},
};
use shared::effect::protocol::{Lifetime, Outcome, PinnedInput, PublishedPort, ToolDeclaration};

/// A type that fits into a column.
pub(super) trait Column: Sized {
    fn to_column(&self) -> Result<Value, String>;
    fn from_column(value: ValueRef<'_>) -> Result<Self, String>;
}

/// A row that is a table's row, column by column.
pub(super) trait Table: Sized {
    const NAME: &'static str;
    const SELECT: &'static str;
    const INSERT: &'static str;
    const UPSERT: &'static str;

    fn values(&self) -> Result<Vec<Value>, StoreError>;
    fn read(row: &Row<'_>) -> Result<Self, StoreError>;
}

/// A table whose rows may change, in some columns.
pub(super) trait Changing: Table {
    /// Sets the columns that may change in the row that agrees in all others. Tried in order until one changes a row: a
    /// statement that does not set an indexed column leaves the index alone, which is a page less to write.
    const UPDATES: &'static [&'static str];

    /// The parameters of each of these.
    fn update_values(&self) -> Result<Vec<Value>, StoreError>;
}

/// Names the columns of a table, which are the fields of its row; the first is the key. After them those that may change, and
/// of these the one that is in an index and seldom does.
macro_rules! table {
    (
        $row:ty, $name:literal, [$($fixed:ident),+ $(,)?],
        changing [$first:ident $(, $rest:ident)* $(,)?], seldom [$seldom:ident]
    ) => {
        table!($row, $name, [$($fixed,)+ $seldom, $first $(, $rest)*]);
        table!(@changing $row, $name, [$first $(, $rest)*, $seldom $(, $fixed)+], [
            concat!(
                "UPDATE ", $name, " SET ", stringify!($first), " = :", stringify!($first)
                $(, ", ", stringify!($rest), " = :", stringify!($rest))*,
                " WHERE ", stringify!($seldom), " = :", stringify!($seldom)
                $(, " AND ", stringify!($fixed), " IS :", stringify!($fixed))+
            ),
            concat!(
                "UPDATE ", $name, " SET ", stringify!($first), " = :", stringify!($first)
                $(, ", ", stringify!($rest), " = :", stringify!($rest))*,
                ", ", stringify!($seldom), " = :", stringify!($seldom), " WHERE TRUE"
                $(, " AND ", stringify!($fixed), " IS :", stringify!($fixed))+
            ),
        ]);
    };
    (
        $row:ty, $name:literal, [$($fixed:ident),+ $(,)?],
        changing [$first:ident $(, $rest:ident)* $(,)?]
    ) => {
        table!($row, $name, [$($fixed,)+ $first $(, $rest)*]);
        table!(@changing $row, $name, [$first $(, $rest)* $(, $fixed)+], [
            concat!(
                "UPDATE ", $name, " SET ", stringify!($first), " = :", stringify!($first)
                $(, ", ", stringify!($rest), " = :", stringify!($rest))*,
                " WHERE TRUE" $(, " AND ", stringify!($fixed), " IS :", stringify!($fixed))+
            ),
        ]);
    };
    (@changing $row:ty, $name:literal, [$($column:ident),+], [$($update:expr),+ $(,)?]) => {
        impl Changing for $row {
            const UPDATES: &'static [&'static str] = &[$($update),+];

            fn update_values(&self) -> Result<Vec<Value>, StoreError> {
                // In the order in which the statements first name them.
                table!(@values self, $name, $($column),+)
            }
        }
    };
    (@values $self:ident, $name:literal, $($column:ident),+) => {
        Ok(vec![$(to_column(&$self.$column, $name, stringify!($column))?),+])
    };
    ($row:ty, $name:literal, [$key:ident $(, $column:ident)* $(,)?]) => {
        impl Table for $row {
            const NAME: &'static str = $name;
            const SELECT: &'static str =
                concat!("SELECT ", stringify!($key) $(, ", ", stringify!($column))*, " FROM ", $name, " ");
            const INSERT: &'static str = concat!(
                "INSERT INTO ", $name, " (", stringify!($key) $(, ", ", stringify!($column))*, ") VALUES (:",
                stringify!($key) $(, ", :", stringify!($column))*, ")"
            );
            const UPSERT: &'static str = concat!(
                "INSERT INTO ", $name, " (", stringify!($key) $(, ", ", stringify!($column))*, ") VALUES (:",
                stringify!($key) $(, ", :", stringify!($column))*, ") ON CONFLICT (", stringify!($key), ") DO UPDATE SET ",
                stringify!($key), " = :", stringify!($key)
                $(, ", ", stringify!($column), " = :", stringify!($column))*
            );

            fn values(&self) -> Result<Vec<Value>, StoreError> {
                table!(@values self, $name, $key $(, $column)*)
            }

            fn read(row: &Row<'_>) -> Result<Self, StoreError> {
                let mut columns = Columns { row, table: $name, next: 0 };
                Ok(Self {
                    $key: columns.take(stringify!($key))?
                    $(, $column: columns.take(stringify!($column))?)*
                })
            }
        }
    };
}
pub(super) use table;

/// The columns of a row from left to right.
pub(super) struct Columns<'a> {
    pub(super) row: &'a Row<'a>,
    pub(super) table: &'static str,
    pub(super) next: usize,
}

impl Columns<'_> {
    pub(super) fn take<C: Column>(&mut self, name: &str) -> Result<C, StoreError> {
        let corrupt = |cause: String| StoreError::Corrupt {
            what: self.table,
            cause: format!("{name}: {cause}"),
        };
        let value = self
            .row
            .get_ref(self.next)
            .map_err(|error| corrupt(error.to_string()))?;
        let column = C::from_column(value).map_err(corrupt)?;
        self.next += 1;
        Ok(column)
    }
}

pub(super) fn to_column(field: &impl Column, table: &str, name: &str) -> Result<Value, StoreError> {
    field
        .to_column()
        .map_err(|cause| StoreError::Constraint(format!("{name} of {table}: {cause}")))
}

impl Column for String {
    fn to_column(&self) -> Result<Value, String> {
        Ok(Value::Text(self.clone()))
    }

    fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
        text(value).map(str::to_owned)
    }
}

impl Column for bool {
    fn to_column(&self) -> Result<Value, String> {
        Ok(Value::Integer(i64::from(*self)))
    }

    fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
        integer(value).map(|number| number != 0)
    }
}

impl Column for u32 {
    fn to_column(&self) -> Result<Value, String> {
        Ok(Value::Integer(i64::from(*self)))
    }

    fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
        integer(value)?
            .try_into()
            .map_err(|_| "out of range".into())
    }
}

impl Column for u64 {
    fn to_column(&self) -> Result<Value, String> {
        i64::try_from(*self)
            .map(Value::Integer)
            .map_err(|_| format!("{self} is too large"))
    }

    fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
        integer(value)?
            .try_into()
            .map_err(|_| "out of range".into())
    }
}

impl<C: Column> Column for Option<C> {
    fn to_column(&self) -> Result<Value, String> {
        self.as_ref().map_or(Ok(Value::Null), Column::to_column)
    }

    fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
        if value == ValueRef::Null {
            Ok(None)
        } else {
            C::from_column(value).map(Some)
        }
    }
}

impl Column for Digest {
    fn to_column(&self) -> Result<Value, String> {
        Ok(Value::Text(self.as_str().to_owned()))
    }

    fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
        text(value)?
            .parse()
            .map_err(|error: shared::digest::DigestError| error.to_string())
    }
}

impl Column for OffsetDateTime {
    fn to_column(&self) -> Result<Value, String> {
        self.format(&Rfc3339)
            .map(Value::Text)
            .map_err(|error| error.to_string())
    }

    fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
        Self::parse(text(value)?, &Rfc3339).map_err(|error| error.to_string())
    }
}

macro_rules! json_columns {
    ($($type:ty),+ $(,)?) => {$(
        impl Column for $type {
            fn to_column(&self) -> Result<Value, String> {
                serde_json::to_string(self).map(Value::Text).map_err(|error| error.to_string())
            }

            fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
                serde_json::from_str(text(value)?).map_err(|error| error.to_string())
            }
        }
    )+};
}

json_columns!(
    Vec<String>,
    Vec<PublishedPort>,
    Vec<PinnedInput>,
    Vec<ToolDeclaration>,
    serde_json::Value
);

/// Enums without fields stand in columns by the name they have in JSON.
macro_rules! name_columns {
    ($($type:ty),+ $(,)?) => {$(
        impl Column for $type {
            fn to_column(&self) -> Result<Value, String> {
                to_name(self).map(Value::Text)
            }

            fn from_column(value: ValueRef<'_>) -> Result<Self, String> {
                from_name(text(value)?)
            }
        }
    )+};
}

name_columns!(
    RunState,
    CheckpointKind,
    CheckpointState,
    Verdict,
    ReturnTo,
    Assurance,
    CheckPhase,
    CheckVerdict,
    Lifetime,
    Outcome,
    SpecificationStatus,
    TokenKind,
);

fn to_name(value: &impl Serialize) -> Result<String, String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        Ok(other) => Err(format!("{other} is no name")),
        Err(error) => Err(error.to_string()),
    }
}

fn from_name<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(name.to_owned()))
        .map_err(|error| error.to_string())
}

fn text(value: ValueRef<'_>) -> Result<&str, String> {
    value.as_str().map_err(|error| error.to_string())
}

fn integer(value: ValueRef<'_>) -> Result<i64, String> {
    value.as_i64().map_err(|error| error.to_string())
}
