//! Values as they go into statements and come back in rows.

use super::super::StoreError;

/// What a column can hold. Nothing knows its type on the way in; on the way back it may come as any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Bool(bool),
}

/// The columns of one row.
pub(in crate::store) type Row = Vec<Value>;

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(whether: bool) -> Self {
        Self::Bool(whether)
    }
}

/// A type that a column is read as; none for a value of another.
pub(in crate::store) trait FromColumn: Sized {
    fn read(value: Value) -> Option<Self>;
}

impl FromColumn for String {
    fn read(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) => text,
            Value::Integer(_) | Value::Bool(_) => None,
        }
    }
}

impl FromColumn for i64 {
    fn read(value: Value) -> Option<Self> {
        match value {
            Value::Integer(number) => number,
            Value::Text(_) | Value::Bool(_) => None,
        }
    }
}

impl FromColumn for bool {
    /// SQLite has no booleans of its own.
    fn read(value: Value) -> Option<Self> {
        match value {
            Value::Bool(whether) => Some(whether),
            Value::Integer(number) => number.map(|number| number != 0),
            Value::Text(_) => None,
        }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn read(value: Value) -> Option<Self> {
        if matches!(value, Value::Text(None) | Value::Integer(None)) { Some(None) } else { T::read(value).map(Some) }
    }
}

/// A type that a row is read as.
pub(in crate::store) trait FromColumns: Sized {
    fn read(row: Row) -> Result<Self, StoreError>;
}

fn next<T: FromColumn>(columns: &mut impl Iterator<Item = Value>, position: &mut u32) -> Result<T, StoreError> {
    *position += 1;
    let value = columns.next().and_then(T::read);
    value.ok_or_else(|| StoreError::corrupt(format_args!("column {position} of a row is missing or of another type")))
}

macro_rules! rows_of {
    ($($column:ident)+) => {
        impl<$($column: FromColumn),+> FromColumns for ($($column,)+) {
            fn read(row: Row) -> Result<Self, StoreError> {
                let (mut columns, mut position) = (row.into_iter(), 0);
                Ok(($(next::<$column>(&mut columns, &mut position)?,)+))
            }
        }
    };
}

rows_of!(A);
rows_of!(A B);
rows_of!(A B C);
rows_of!(A B C D);
rows_of!(A B C D E);
rows_of!(A B C D E F);
rows_of!(A B C D E F G);
rows_of!(A B C D E F G H);
rows_of!(A B C D E F G H I);
rows_of!(A B C D E F G H I J K L);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_its_types_and_nothing_else() {
        let row = vec![Value::from("a"), Value::Integer(None), Value::from(1), Value::from(true)];
        let read: (String, Option<String>, bool, bool) = FromColumns::read(row.clone()).unwrap();
        assert_eq!(read, ("a".to_owned(), None, true, true));
        let refused: Result<(i64,), _> = FromColumns::read(row);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "the store is damaged: column 1 of a row is missing or of another type"
        );
        assert!(<(String, i64)>::read(vec![Value::from("a")]).is_err());
        assert!(<(i64,)>::read(vec![Value::Integer(None)]).is_err());
    }
}
