//! Columns as Python's `marshal` has them (version 2, which every CPython reads and writes): numbers, strings and lists go
//! to a worker and come back at the speed of the interpreter's own C code, with no package installed.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    new_empty_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, UInt64Type};

/// A value that Python wrote.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
}

/// Bytes that Python reads as one object.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn tuple(&mut self, length: usize) {
        self.sized(b'(', length);
    }

    pub(super) fn list(&mut self, length: usize) {
        self.sized(b'[', length);
    }

    pub(super) fn float(&mut self, value: f64) {
        self.0.push(b'g');
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn int(&mut self, value: i128) {
        if let Ok(small) = i32::try_from(value) {
            self.0.push(b'i');
            self.0.extend(small.to_le_bytes());
            return;
        }
        let (mut rest, mut digits) = (value.unsigned_abs(), Vec::new());
        while rest > 0 {
            digits.push((rest & 0x7fff) as u16);
            rest >>= 15;
        }
        let count = digits.len() as i32;
        self.0.push(b'l');
        self.0.extend((if value < 0 { -count } else { count }).to_le_bytes());
        digits.iter().for_each(|digit| self.0.extend(digit.to_le_bytes()));
    }

    fn sized(&mut self, kind: u8, length: usize) {
        self.0.push(kind);
        self.0.extend((length as u32).to_le_bytes());
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.sized(kind, bytes.len());
        self.0.extend(bytes);
    }

    /// A column as a list.
    ///
    /// # Errors
    /// The type, which Python has no plain value for.
    pub(super) fn column(&mut self, column: &ArrayRef) -> Result<(), DataType> {
        let plain = plain(column)?;
        self.list(plain.len());
        self.values(&plain)
    }

    fn values(&mut self, column: &ArrayRef) -> Result<(), DataType> {
        match column.data_type() {
            DataType::Boolean => {
                let values = column.as_boolean();
                self.each(column, |writer, at| writer.0.push(if values.value(at) { b'T' } else { b'F' }));
            }
            DataType::Int64 => {
                let values = column.as_primitive::<Int64Type>();
                self.each(column, |writer, at| writer.int(values.value(at).into()));
            }
            DataType::UInt64 => {
                let values = column.as_primitive::<UInt64Type>();
                self.each(column, |writer, at| writer.int(values.value(at).into()));
            }
            DataType::Float64 => {
                let values = column.as_primitive::<Float64Type>();
                self.each(column, |writer, at| writer.float(values.value(at)));
            }
            DataType::LargeUtf8 => {
                let values = column.as_string::<i64>();
                self.each(column, |writer, at| writer.bytes(b'u', values.value(at).as_bytes()));
            }
            DataType::LargeBinary => {
                let values = column.as_binary::<i64>();
                self.each(column, |writer, at| writer.bytes(b's', values.value(at)));
            }
            DataType::LargeList(_) => {
                let lists = column.as_list::<i64>();
                for at in 0..lists.len() {
                    if lists.is_null(at) {
                        self.0.push(b'N');
                    } else {
                        self.column(&lists.value(at))?;
                    }
                }
            }
            DataType::Struct(fields) => {
                let values = column.as_struct();
                let columns: Vec<ArrayRef> = values.columns().iter().map(plain).collect::<Result<_, _>>()?;
                for at in 0..values.len() {
                    if values.is_null(at) {
                        self.0.push(b'N');
                        continue;
                    }
                    self.0.push(b'{');
                    for (field, column) in fields.iter().zip(&columns) {
                        self.bytes(b'u', field.name().as_bytes());
                        self.values(&column.slice(at, 1))?;
                    }
                    self.0.push(b'0');
                }
            }
            DataType::Null => self.0.resize(self.0.len() + column.len(), b'N'),
            other => return Err(other.clone()),
        }
        Ok(())
    }

    fn each(&mut self, column: &ArrayRef, mut write: impl FnMut(&mut Self, usize)) {
        for at in 0..column.len() {
            if column.is_null(at) { self.0.push(b'N') } else { write(self, at) }
        }
    }
}

/// A column as one of few types that say the same.
fn plain(column: &ArrayRef) -> Result<ArrayRef, DataType> {
    let wider = match column.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            DataType::Int64
        }
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Utf8 | DataType::Utf8View => DataType::LargeUtf8,
        DataType::Binary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::LargeBinary,
        DataType::List(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => DataType::LargeList(Arc::clone(field)),
        DataType::Dictionary(_, values) => {
            return plain(&cast(column, values).map_err(|_| column.data_type().clone())?);
        }
        _ => return Ok(Arc::clone(column)),
    };
    cast(column, &wider).map_err(|_| column.data_type().clone())
}

/// Reads what Python wrote.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

/// What came is nothing that a worker writes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker sent what can't be read")]
pub(super) struct Unreadable;

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// The number of elements of what follows, each of which takes a byte at least.
    fn length(&mut self) -> Result<usize, Unreadable> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        if length <= self.0.len() { Ok(length) } else { Err(Unreadable) }
    }

    pub(super) fn value(&mut self) -> Result<Value, Unreadable> {
        let [kind] = self.take()?;
        Ok(match kind {
            b'N' => Value::None,
            b'T' => Value::Bool(true),
            b'F' => Value::Bool(false),
            b'i' => Value::Int(i32::from_le_bytes(self.take()?).into()),
            b'g' => Value::Float(f64::from_le_bytes(self.take()?)),
            b'l' => {
                let count = i32::from_le_bytes(self.take()?);
                let mut value: i128 = 0;
                for place in 0..count.unsigned_abs() {
                    let digit = i128::from(u16::from_le_bytes(self.take()?));
                    value += digit.checked_shl(15 * place).ok_or(Unreadable)?;
                }
                Value::Int((if count < 0 { -value } else { value }).try_into().map_err(|_| Unreadable)?)
            }
            b'u' => {
                let length = self.length()?;
                let (text, rest) = self.0.split_at(length);
                self.0 = rest;
                Value::Text(String::from_utf8(text.to_vec()).map_err(|_| Unreadable)?)
            }
            b'[' | b'(' => {
                let length = self.length()?;
                Value::List((0..length).map(|_| self.value()).collect::<Result<_, _>>()?)
            }
            _ => return Err(Unreadable),
        })
    }
}

impl Value {
    pub(super) fn list(self) -> Result<Vec<Value>, Unreadable> {
        if let Self::List(values) = self { Ok(values) } else { Err(Unreadable) }
    }
    pub(super) fn text(self) -> Result<String, Unreadable> {
        if let Self::Text(text) = self { Ok(text) } else { Err(Unreadable) }
    }
    pub(super) fn size(&self) -> Result<usize, Unreadable> {
        if let Self::Int(number) = self { usize::try_from(*number).map_err(|_| Unreadable) } else { Err(Unreadable) }
    }
    fn float(&self) -> Result<Option<f64>, Unreadable> {
        match self {
            Self::Float(value) => Ok(Some(*value)),
            Self::Int(value) => Ok(Some(*value as f64)),
            Self::None => Ok(None),
            _ => Err(Unreadable),
        }
    }
    fn int(&self) -> Result<Option<i64>, Unreadable> {
        match self {
            Self::Int(value) => Ok(Some(*value)),
            Self::Bool(value) => Ok(Some((*value).into())),
            Self::None => Ok(None),
            _ => Err(Unreadable),
        }
    }
}

/// A column of values of one of the types that a function may add.
pub(super) fn array(values: Vec<Value>, data_type: &DataType) -> Result<ArrayRef, Unreadable> {
    let each = values.iter();
    Ok(match data_type {
        DataType::Int64 => Arc::new(each.map(Value::int).collect::<Result<Int64Array, _>>()?),
        DataType::Int32 => {
            let narrow = |value: Option<i64>| value.map(i32::try_from).transpose().map_err(|_| Unreadable);
            Arc::new(each.map(|value| narrow(value.int()?)).collect::<Result<Int32Array, _>>()?)
        }
        DataType::Float64 => Arc::new(each.map(Value::float).collect::<Result<Float64Array, _>>()?),
        DataType::Float32 => {
            let narrow = |value: &Value| Ok(value.float()?.map(|value| value as f32));
            Arc::new(each.map(narrow).collect::<Result<Float32Array, _>>()?)
        }
        DataType::Boolean => {
            let truth = |value: &Value| match value {
                Value::Bool(value) => Ok(Some(*value)),
                Value::None => Ok(None),
                _ => Err(Unreadable),
            };
            Arc::new(each.map(truth).collect::<Result<BooleanArray, _>>()?)
        }
        DataType::Utf8 => {
            let text = |value: Value| match value {
                Value::Text(text) => Ok(Some(text)),
                Value::None => Ok(None),
                _ => Err(Unreadable),
            };
            Arc::new(values.into_iter().map(text).collect::<Result<StringArray, _>>()?)
        }
        DataType::List(field) => list(values, field)?,
        other => new_empty_array(other),
    })
}

fn list(values: Vec<Value>, field: &Arc<Field>) -> Result<ArrayRef, Unreadable> {
    let (mut lengths, mut valid, mut inner) = (Vec::new(), Vec::new(), Vec::new());
    for value in values {
        valid.push(value != Value::None);
        let values = if value == Value::None { Vec::new() } else { value.list()? };
        lengths.push(values.len());
        inner.extend(values);
    }
    let (offsets, inner) = (OffsetBuffer::from_lengths(lengths), array(inner, field.data_type())?);
    let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, inner, nulls).map_err(|_| Unreadable)?))
}
