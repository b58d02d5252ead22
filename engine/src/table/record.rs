//! Typed rows to Arrow and back: what lets a kind be written over structs while tables stay columnar.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::cast_exactly;

/// Why a table could not be read as rows.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The table lacks a column that the row type reads.
    #[error("column `{0}` is missing")]
    MissingColumn(String),
    /// The column is there, with a type that can't be read as the field's.
    #[error("column `{column}` has type {found}, expected {expected}")]
    WrongType {
        /// The column's name.
        column: String,
        /// Its type in the table.
        found: DataType,
        /// The type that the row type reads.
        expected: DataType,
    },
    /// A null where the row type has no `Option`.
    #[error("column `{column}` is null in row {row}")]
    Null {
        /// The column's name.
        column: String,
        /// 0-based row number.
        row: usize,
    },
    /// A column holds what no type here can hold without changing it.
    #[error("column `{column}` holds {what}, which can't be kept as they are: {help}")]
    Unreadable {
        /// The column's name.
        column: String,
        /// What it holds.
        what: String,
        /// What to write instead.
        help: &'static str,
    },
    /// A column whose values have an order of their own, or might have had others.
    #[error("column `{column}` holds values of {what}, whose order can't be kept: write them as text, or as numbers")]
    Ordered {
        /// The column's name.
        column: String,
        /// Whose values they are.
        what: &'static str,
    },
    /// A value that the type which is asked for does not hold.
    #[error("column `{column}` is {value} in row {row}, which {expected} can't hold")]
    Value {
        /// The column's name.
        column: String,
        /// 0-based row number.
        row: usize,
        /// The value, as text.
        value: String,
        /// The type.
        expected: DataType,
    },
    /// More text, bytes or items of lists than one piece of a table can have.
    #[error(
        "column `{column}` has more than 2 GiB of text, bytes or items of lists in the {rows} rows from row {row} on: {help}"
    )]
    TooLong {
        /// The column's name.
        column: String,
        /// 0-based row from which on.
        row: usize,
        /// In how many rows.
        rows: usize,
        /// What to do.
        help: &'static str,
    },
    /// Rows without columns, which a Parquet file does not count.
    #[error("a table without columns can't keep its {rows} rows: give it a column")]
    NoColumns {
        /// How many there are.
        rows: usize,
    },
    /// Dates in the format int96 of which some reach too far for nanoseconds and others need them.
    #[error(
        "column `{column}` has a date outside 1677 to 2262 in row {far} and one with nanoseconds in row {fine}: no type holds both; write the column as timestamps in microseconds"
    )]
    DateRange {
        /// The column's name.
        column: String,
        /// 0-based row of the first date that is out of range.
        far: usize,
        /// 0-based row of the first date with nanoseconds.
        fine: usize,
    },
    /// Arrow refused to build the batch.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

/// A row type: a struct whose fields are columns. Made by [`record!`](crate::record).
pub trait Record: Clone + Send + Sync + Sized + 'static {
    /// The columns, in the order of the fields.
    fn schema() -> SchemaRef;
    /// Reads the struct's columns of `batch`, by name; other columns are left alone.
    ///
    /// # Errors
    /// A column is missing, has another type, or holds a null that the field does not allow.
    fn read(batch: &RecordBatch) -> Result<Vec<Self>, RecordError>;
    /// Writes one row a struct, with exactly [`Record::schema`].
    ///
    /// # Errors
    /// [`RecordError::Arrow`] if the arrays don't make a batch.
    fn write(rows: &[Self]) -> Result<RecordBatch, RecordError>;
}

/// A field type of a [`Record`].
pub trait Column: Clone + Sized {
    /// The Arrow type that stands for it.
    fn data_type() -> DataType;
    /// Whether the column may hold nulls.
    const NULLABLE: bool = false;
    /// All values of an array of [`Column::data_type`].
    fn values(array: &ArrayRef) -> Vec<Self>;
    /// The array of the values.
    fn array(values: Vec<Self>) -> ArrayRef;
}

/// Reads the column `name` of `batch` as `T`, casting between string or integer widths where nothing is lost.
///
/// # Errors
/// As [`Record::read`].
pub fn read_column<T: Column>(batch: &RecordBatch, name: &str) -> Result<Vec<T>, RecordError> {
    let array = batch.column_by_name(name).ok_or_else(|| RecordError::MissingColumn(name.to_owned()))?;
    let expected = T::data_type();
    let array = if *array.data_type() == expected {
        Arc::clone(array)
    } else {
        let wrong = || RecordError::WrongType {
            column: name.to_owned(),
            found: array.data_type().clone(),
            expected: expected.clone(),
        };
        if !readable_as(array.data_type(), &expected) {
            return Err(wrong());
        }
        cast_exactly(name, array, &expected)?
    };
    if !T::NULLABLE && array.null_count() > 0 {
        let row = (0..array.len()).find(|&row| array.is_null(row)).unwrap_or_default();
        return Err(RecordError::Null { column: name.to_owned(), row });
    }
    Ok(T::values(&array))
}

/// The table with the column `name`: as it is if it has one, else with the given values, one per row.
///
/// # Errors
/// [`RecordError::Arrow`] if there are more or fewer values than rows.
pub fn with_column<T: Column>(
    table: RecordBatch,
    name: &str,
    values: impl FnOnce(usize) -> Vec<T>,
) -> Result<RecordBatch, RecordError> {
    if table.column_by_name(name).is_some() {
        return Ok(table);
    }
    let field = Arc::new(Field::new(name, T::data_type(), T::NULLABLE));
    let fields: Vec<_> = table.schema().fields().iter().cloned().chain([field]).collect();
    let columns = table.columns().iter().cloned().chain([T::array(values(table.num_rows()))]).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Whether a column of type `found` can be read as `expected` without changing what it means: null stands for any.
pub fn readable_as(found: &DataType, expected: &DataType) -> bool {
    fn family(data_type: &DataType) -> u8 {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 1,
            t if t.is_integer() => 2,
            DataType::Float32 | DataType::Float64 => 3,
            DataType::Boolean => 4,
            _ => 0,
        }
    }
    match (found, expected) {
        (a, b) if a == b => true,
        (DataType::Null, _) | (_, DataType::Null) => true,
        (DataType::Dictionary(_, value), b) => readable_as(value, b),
        (
            DataType::List(a) | DataType::LargeList(a) | DataType::ListView(a) | DataType::FixedSizeList(a, _),
            DataType::List(b),
        ) => readable_as(a.data_type(), b.data_type()),
        (a, b) => family(a) != 0 && family(a) == family(b),
    }
}

macro_rules! primitive_column {
    ($rust:ty, $array:ty, $data_type:expr) => {
        impl Column for $rust {
            fn data_type() -> DataType {
                $data_type
            }
            fn values(array: &ArrayRef) -> Vec<Self> {
                downcast::<$array>(array).iter().map(Option::unwrap_or_default).collect()
            }
            fn array(values: Vec<Self>) -> ArrayRef {
                Arc::new(<$array>::from(values))
            }
        }
        impl Column for Option<$rust> {
            fn data_type() -> DataType {
                $data_type
            }
            const NULLABLE: bool = true;
            fn values(array: &ArrayRef) -> Vec<Self> {
                downcast::<$array>(array).iter().collect()
            }
            fn array(values: Vec<Self>) -> ArrayRef {
                Arc::new(<$array>::from(values))
            }
        }
    };
}

primitive_column!(i32, Int32Array, DataType::Int32);
primitive_column!(i64, Int64Array, DataType::Int64);
primitive_column!(u32, UInt32Array, DataType::UInt32);
primitive_column!(f32, Float32Array, DataType::Float32);
primitive_column!(f64, Float64Array, DataType::Float64);
primitive_column!(bool, BooleanArray, DataType::Boolean);

impl Column for String {
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn values(array: &ArrayRef) -> Vec<Self> {
        downcast::<StringArray>(array).iter().map(|value| value.unwrap_or_default().to_owned()).collect()
    }
    fn array(values: Vec<Self>) -> ArrayRef {
        Arc::new(StringArray::from(values))
    }
}

impl Column for Option<String> {
    fn data_type() -> DataType {
        DataType::Utf8
    }
    const NULLABLE: bool = true;
    fn values(array: &ArrayRef) -> Vec<Self> {
        downcast::<StringArray>(array).iter().map(|value| value.map(str::to_owned)).collect()
    }
    fn array(values: Vec<Self>) -> ArrayRef {
        Arc::new(StringArray::from(values))
    }
}

/// A list of non-null items.
impl<T: Column> Column for Vec<T> {
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new("item", T::data_type(), true)))
    }
    fn values(array: &ArrayRef) -> Vec<Self> {
        let lists = downcast::<ListArray>(array);
        let items = T::values(lists.values());
        lists.offsets().windows(2).map(|window| items[window[0] as usize..window[1] as usize].to_vec()).collect()
    }
    fn array(values: Vec<Self>) -> ArrayRef {
        let offsets = OffsetBuffer::from_lengths(values.iter().map(Vec::len));
        let items = T::array(values.into_iter().flatten().collect());
        let field = Arc::new(Field::new("item", T::data_type(), true));
        Arc::new(ListArray::new(field, offsets, items, None))
    }
}

fn downcast<A: Array + 'static>(array: &ArrayRef) -> &A {
    array.as_any().downcast_ref::<A>().expect("the column's type was checked by read_column")
}

/// The schema of named columns.
pub fn schema_of(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

/// Declares row types: structs whose fields are columns.
///
/// ```
/// tracetune_engine::record! {
///     /// One verdict.
///     pub struct VerdictRow {
///         /// `pass`, `fail`, …
///         pub verdict: String,
///         /// Tests passed.
///         pub passed: i32,
///     }
/// }
/// ```
#[macro_export]
macro_rules! record {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $type:ty),* $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type),* }

        impl $crate::table::Record for $name {
            fn schema() -> $crate::arrow::datatypes::SchemaRef {
                $crate::table::schema_of(vec![$($crate::arrow::datatypes::Field::new(
                    stringify!($field),
                    <$type as $crate::table::Column>::data_type(),
                    <$type as $crate::table::Column>::NULLABLE,
                )),*])
            }
            fn read(batch: &$crate::arrow::array::RecordBatch) -> Result<Vec<Self>, $crate::table::RecordError> {
                $(let mut $field = $crate::table::read_column::<$type>(batch, stringify!($field))?.into_iter();)*
                Ok((0..batch.num_rows())
                    .map(|_| Self { $($field: $field.next().expect("every column has the batch's length")),* })
                    .collect())
            }
            fn write(rows: &[Self]) -> Result<$crate::arrow::array::RecordBatch, $crate::table::RecordError> {
                let columns = vec![$(<$type as $crate::table::Column>::array(
                    rows.iter().map(|row| row.$field.clone()).collect(),
                )),*];
                let options = $crate::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
                Ok($crate::arrow::array::RecordBatch::try_new_with_options(Self::schema(), columns, &options)?)
            }
        }
    )+};
}
