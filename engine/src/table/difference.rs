//! Where two tables differ, for people.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;

use super::{TableError, shown};

/// Letters of a value that are shown.
const SHOWN: usize = 60;

/// The first thing by which a table differs from what it was: its columns, a value, its number of rows.
///
/// # Errors
/// A value can't be written as text.
pub fn first_difference(was: &RecordBatch, is: &RecordBatch) -> Result<String, TableError> {
    if was.schema() != is.schema() {
        return Ok("it has other columns".to_owned());
    }
    for row in 0..was.num_rows().min(is.num_rows()) {
        for (place, (old, new)) in was.columns().iter().zip(is.columns()).enumerate() {
            if old.slice(row, 1) != new.slice(row, 1) {
                let name = was.schema().field(place).name().clone();
                return Ok(format!("row {row}: `{name}` is {}, was {}", text(new, row)?, text(old, row)?));
            }
        }
    }
    Ok(match (was.num_rows(), is.num_rows()) {
        (was, is) if was == is => "the bytes differ, the values do not".to_owned(),
        (was, is) => format!("it has {is} rows, had {was}"),
    })
}

fn text(column: &ArrayRef, row: usize) -> Result<String, TableError> {
    if column.is_null(row) {
        return Ok("null".to_owned());
    }
    let whole: String = array_value_to_string(&shown(column), row)?.chars().flat_map(char::escape_debug).collect();
    let cut: String = whole.chars().take(SHOWN).collect();
    Ok(if cut.len() < whole.len() { format!("`{cut}…`") } else { format!("`{cut}`") })
}
