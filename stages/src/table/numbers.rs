//! Numbers in JSON Lines that the type of their column would change: the `arrow` crates cut 2.5 to 2 in a column of integers,
//! and round large integers in a column of floats.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use serde_json::{Number, Value};

/// Fields from the outermost to a number's own; the items of a list are at the list's path.
type FieldPath = Vec<String>;

/// The first of each kind in each field, with its line.
#[derive(Default)]
pub(super) struct Numbers {
    /// They are no integers that 64 bits hold.
    fractions: BTreeMap<FieldPath, (usize, Number)>,
    /// They are integers that `float64` rounds.
    long: BTreeMap<FieldPath, (usize, Number)>,
}

impl Numbers {
    /// The value of a line, none of an empty one.
    pub(super) fn read(&mut self, line: std::io::Result<String>, place: usize) -> Result<Option<Value>, ArrowError> {
        let failed = |error: String| ArrowError::JsonError(format!("line {place}: {error}"));
        let line = line.map_err(|error| failed(error.to_string()))?;
        if line.trim().is_empty() {
            return Ok(None);
        }
        let value = serde_json::from_str(&line).map_err(|error| failed(error.to_string()))?;
        self.note(&value, place, &mut Vec::new());
        Ok(Some(value))
    }

    fn note<'a>(&mut self, value: &'a Value, line: usize, path: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    path.push(name);
                    self.note(value, line, path);
                    path.pop();
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.note(item, line, path)),
            Value::Number(number) => {
                let of_kind = match number.as_i128() {
                    None if is_fraction(number) => &mut self.fractions,
                    Some(integer) if integer as f64 as i128 != integer => &mut self.long,
                    _ => return,
                };
                let path: FieldPath = path.iter().map(|name| (*name).to_owned()).collect();
                of_kind.entry(path).or_insert_with(|| (line, number.clone()));
            }
            _ => {}
        }
    }

    /// Fails at a number that its column would change; a column for which `types` says `float64` may round.
    pub(super) fn check(&self, schema: &Schema, types: &BTreeMap<String, DataType>) -> Result<(), String> {
        let failed = |path: &FieldPath, (line, number): &(usize, Number), holds: &DataType, help: &str| {
            let column = path.join(".");
            Err(format!("line {line}: `{column}` is {number}, which its column of type {holds} can't hold{help}"))
        };
        for (path, first) in &self.fractions {
            if let Some(holds) = type_at(schema, path).filter(|holds| holds.is_integer()) {
                return failed(path, first, holds, "");
            }
        }
        for (path, first) in
            self.long.iter().filter(|(path, _)| !path.first().is_some_and(|name| types.contains_key(name)))
        {
            if let Some(holds) = type_at(schema, path).filter(|holds| **holds == DataType::Float64) {
                let help = path.first().map(|name| format!(" exactly: `types = {{ {name} = \"float64\" }}` rounds it"));
                return failed(path, first, holds, help.filter(|_| path.len() == 1).as_deref().unwrap_or(" exactly"));
            }
        }
        Ok(())
    }
}

/// Whether a number that is written with a point, an exponent or more digits than 64 bits hold is none of their integers.
fn is_fraction(number: &Number) -> bool {
    const EXACT: f64 = (1_u64 << 53) as f64;
    number.as_f64().is_none_or(|number| number.fract() != 0.0 || number.abs() > EXACT)
}

fn type_at<'a>(schema: &'a Schema, path: &[String]) -> Option<&'a DataType> {
    let (column, fields) = path.split_first()?;
    fields.iter().try_fold(item(schema.field_with_name(column).ok()?.data_type()), |data_type, name| match data_type {
        DataType::Struct(fields) => Some(item(fields.find(name)?.1.data_type())),
        _ => None,
    })
}

/// The type of a list's items, however deep; other types as they are.
fn item(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(field) => item(field.data_type()),
        other => other,
    }
}
