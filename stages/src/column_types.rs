//! Types of columns by name, as users write them: `int64`, `list of string`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use tracetune_engine::stage::ParamError;

/// What to write instead of a name that there is not.
pub(crate) const HELP: &str = "write `string`, `bool`, `int32`, `int64`, `float32`, `float64`, or `list of …`";

/// The type of a name.
pub(crate) fn data_type(name: &str) -> Option<DataType> {
    Some(match name {
        "string" => DataType::Utf8,
        "bool" => DataType::Boolean,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "float32" => DataType::Float32,
        "float64" => DataType::Float64,
        name => DataType::List(Arc::new(Field::new("item", data_type(name.strip_prefix("list of ")?)?, true))),
    })
}

/// The first column whose type's name is none.
pub(crate) fn unknown(columns: &BTreeMap<String, String>) -> Option<(&String, &String)> {
    columns.iter().find(|(_, kind)| data_type(kind).is_none())
}

/// Checks the columns that a parameter names, with their types.
///
/// # Errors
/// A type of that name there is not.
pub(crate) fn check(param: &'static str, columns: &BTreeMap<String, String>) -> Result<(), ParamError> {
    let Some((name, kind)) = unknown(columns) else { return Ok(()) };
    let message = format!("column `{name}` has a type `{kind}`, which there is not");
    Err(ParamError { param, message, help: Some(HELP.to_owned()) })
}
