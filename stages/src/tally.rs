//! Kind `tally`: how rows are spread over the values of a column, as metrics.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{
    self, Artifact, Context, Inputs, Output, Outputs, ParamError, Port, PortType, StageError, TableStage,
};
use tracetune_engine::table::{Record, RecordError};

use crate::metrics::{MetricRow, clustered_bootstrap, plain};

/// Bootstrap draws behind each interval.
const RESAMPLES: usize = 1000;

record! {
    /// Where a row belongs.
    pub struct PlacedRow {
        /// Its problem.
        pub problem_id: String,
        /// Its split.
        pub split: String,
    }
}

/// What may stand under `kind = "tally"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The column whose values are counted.
    pub by: String,
}

impl Default for Params {
    fn default() -> Self {
        Self { by: "mutation".to_owned() }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        Ok(())
    }
}

/// Counts rows and problems of each split, and gives each value's share of the rows with a 95 % bootstrap interval
/// clustered by problem.
///
/// # Errors
/// [`StageError::Input`] if the table has no column `by`, or none that can be counted.
pub struct Tally;

impl TableStage for Tally {
    const KIND: &'static str = "tally";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "how rows are spread over a column's values, e.g. bugs over their kinds";
    type Params = Params;

    fn ports() -> Vec<Port> {
        let placed = PortType::Table(Some(PlacedRow::schema()));
        vec![Port { name: "rows", port_type: placed, optional: false, about: "the rows to count" }]
    }

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output { name: "metrics", port_type: PortType::Table(Some(MetricRow::schema())) }]
    }

    fn run(params: &Params, inputs: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        let table = inputs.table("rows").ok_or_else(|| StageError::input("the port `rows` is not connected"))?;
        let rows = PlacedRow::read(table)?;
        let metrics = metrics(&rows, &values(table, &params.by)?);
        Ok(Outputs::from([("metrics", Artifact::Table(MetricRow::write(&metrics)?))]))
    }
}

/// The column's values as texts.
fn values(table: &RecordBatch, by: &str) -> Result<Vec<String>, StageError> {
    let schema = table.schema();
    let column = table.column_by_name(by).ok_or_else(|| {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        StageError::input(format!("there is no column `{by}` to count by; the table has {}", names.join(", ")))
    })?;
    let texts = cast(column, &DataType::Utf8).map_err(|_| {
        StageError::input(format!("column `{by}` holds {}, which can't be counted", column.data_type()))
    })?;
    let texts: &arrow::array::StringArray =
        texts.as_any().downcast_ref().ok_or(RecordError::MissingColumn(by.to_owned()))?;
    Ok(texts.iter().map(|text| text.unwrap_or("null").to_owned()).collect())
}

fn metrics(rows: &[PlacedRow], values: &[String]) -> Vec<MetricRow> {
    let mut metrics = Vec::new();
    for split in rows.iter().map(|row| row.split.as_str()).collect::<BTreeSet<_>>() {
        let here: Vec<(&str, &str)> = rows
            .iter()
            .zip(values)
            .filter(|(row, _)| row.split == split)
            .map(|(row, value)| (row.problem_id.as_str(), value.as_str()))
            .collect();
        let problems: Vec<&str> = here.iter().map(|(problem, _)| *problem).collect();
        metrics.push(plain(split, "rows", here.len() as f64, here.len()));
        let distinct = problems.iter().collect::<BTreeSet<_>>().len();
        metrics.push(plain(split, "problems", distinct as f64, here.len()));
        for value in here.iter().map(|(_, value)| *value).collect::<BTreeSet<_>>() {
            let is: Vec<f64> = here.iter().map(|(_, found)| f64::from(*found == value)).collect();
            metrics.extend(clustered_bootstrap(&is, &problems, RESAMPLES, 1).map(|share| MetricRow {
                ci_low: Some(share.low),
                ci_high: Some(share.high),
                ..plain(split, &format!("share of {value}"), share.mean, here.len())
            }));
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_in_each_split() {
        let row = |problem: usize, split: &str| PlacedRow { problem_id: problem.to_string(), split: split.to_owned() };
        let rows = [row(1, "dev"), row(1, "dev"), row(2, "dev"), row(2, "dev"), row(3, "train")];
        let values = ["a", "a", "b", "a", "c"].map(str::to_owned);
        let metrics = metrics(&rows, &values);
        let found: Vec<_> = metrics.iter().map(|row| (row.split.as_str(), row.metric.as_str(), row.value)).collect();
        assert_eq!(
            found,
            [
                ("dev", "rows", 4.0),
                ("dev", "problems", 2.0),
                ("dev", "share of a", 0.75),
                ("dev", "share of b", 0.25),
                ("train", "rows", 1.0),
                ("train", "problems", 1.0),
                ("train", "share of c", 1.0)
            ]
        );
        assert_eq!((metrics[2].ci_low, metrics[2].ci_high), (Some(0.5), Some(1.0)));
    }

    #[test]
    fn a_column_that_is_not_there_is_named_with_those_that_are() {
        let table = PlacedRow::write(&[]).unwrap();
        let error = values(&table, "mutatoin").unwrap_err().to_string();
        assert!(error.contains("`mutatoin`") && error.contains("problem_id, split"), "{error}");
    }
}
