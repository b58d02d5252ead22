//! Where later kinds want verdicts to have been judged.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::StageError;
use tracetune_engine::table::{RecordError, read_column};

/// What is asked of a verdict's column `judged`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Nothing.
    #[default]
    Any,
    /// All comparisons were made outside the program's process, where it can forge none.
    Outside,
}

impl Demand {
    /// Whether each row of a table meets it.
    ///
    /// # Errors
    /// [`StageError::Input`] if it asks for the column `judged` of a table that has none.
    pub fn met(self, table: &RecordBatch) -> Result<Vec<bool>, StageError> {
        if self == Self::Any {
            return Ok(vec![true; table.num_rows()]);
        }
        outside(table)?.ok_or_else(|| {
            let message =
                "`judged = \"outside\"` needs the column `judged`, which `verify` writes, and the rows have none";
            StageError::input(message)
        })
    }
}

impl Demand {
    /// The rows of a table that meet it.
    ///
    /// # Errors
    /// As [`Demand::met`].
    pub fn keep(self, table: &RecordBatch) -> Result<RecordBatch, StageError> {
        let met = BooleanArray::from(self.met(table)?);
        Ok(filter_record_batch(table, &met).map_err(RecordError::from)?)
    }
}

/// Whether each row was judged outside; `None` where a table does not say.
///
/// # Errors
/// The column `judged` holds no texts.
pub fn outside(table: &RecordBatch) -> Result<Option<Vec<bool>>, StageError> {
    if table.column_by_name("judged").is_none() {
        return Ok(None);
    }
    let judged = read_column::<String>(table, "judged")?;
    Ok(Some(judged.iter().map(|judged| judged == "outside").collect()))
}
