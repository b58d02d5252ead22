//! Kind `tally`: how rows are spread over the values of a column, as metrics.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{
    self, Artifact, Context, Inputs, Output, Outputs, ParamError, Port, PortType, StageError, TableStage,
};
use tracetune_engine::table::Record;

use crate::metrics::{Bounds, MetricRow, clustered_mean, plain, twice};
use crate::values::{numbers, texts};

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
    /// The column whose values are counted; empty for none.
    pub by: String,
    /// Columns of numbers whose means are given.
    pub means: Vec<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self { by: "mutation".to_owned(), means: Vec::new() }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let Some(name) = twice(&self.means) else { return Ok(()) };
        let message = format!("`{name}` is there twice");
        Err(ParamError { param: "means", message, help: Some("leave it out".to_owned()) })
    }
}

/// Counts rows and problems of each split, and gives each value's share of the rows with a 95 % interval over
/// problems; likewise the means of columns, unless all values are equal.
///
/// # Errors
/// [`StageError::Input`] if the table lacks a column, or has it in a type that can't be counted.
pub struct Tally;

impl TableStage for Tally {
    const KIND: &'static str = "tally";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "how rows are spread over a column's values, e.g. bugs over their kinds";
    type Params = Params;

    fn ports() -> Vec<Port> {
        let placed = PortType::Table(Some(PlacedRow::schema()));
        vec![Port { name: "rows", port_type: placed, optional: false, about: "the rows to count" }]
    }

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("metrics", PortType::Table(Some(MetricRow::schema())))]
    }

    fn run(params: &Params, inputs: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        let table = inputs.table("rows").ok_or_else(|| StageError::input("the port `rows` is not connected"))?;
        let rows = PlacedRow::read(table)?;
        let texts = if params.by.is_empty() { Vec::new() } else { texts(table, &params.by)? };
        let means = params.means.iter().map(|name| Ok((name.as_str(), numbers(table, name)?)));
        let means = means.collect::<Result<Vec<_>, StageError>>()?;
        let metrics = metrics(&rows, &texts, &means);
        Ok(Outputs::from([("metrics", Artifact::Table(MetricRow::write(&metrics)?))]))
    }
}

fn metrics(rows: &[PlacedRow], texts: &[String], means: &[(&str, Vec<f64>)]) -> Vec<MetricRow> {
    let mut metrics = Vec::new();
    for split in rows.iter().map(|row| row.split.as_str()).collect::<BTreeSet<_>>() {
        let here: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].split == split).collect();
        let problems: Vec<&str> = here.iter().map(|&row| rows[row].problem_id.as_str()).collect();
        let mean = |metric: &str, values: &[f64], bounds: Bounds| {
            let mean = clustered_mean(values, &problems, bounds);
            let value = mean.map_or_else(|| values.iter().sum::<f64>() / values.len() as f64, |mean| mean.value);
            MetricRow {
                ci_low: mean.map(|mean| mean.low),
                ci_high: mean.map(|mean| mean.high),
                ..plain(split, metric, value, here.len())
            }
        };
        metrics.push(plain(split, "rows", here.len() as f64, here.len()));
        let distinct = problems.iter().collect::<BTreeSet<_>>().len();
        metrics.push(plain(split, "problems", distinct as f64, here.len()));
        if !texts.is_empty() {
            for value in here.iter().map(|&row| texts[row].as_str()).collect::<BTreeSet<_>>() {
                let is: Vec<f64> = here.iter().map(|&row| f64::from(texts[row] == value)).collect();
                metrics.push(mean(&format!("share of {value}"), &is, Bounds::SHARE));
            }
        }
        for (name, numbers) in means {
            let numbers: Vec<f64> = here.iter().map(|&row| numbers[row]).collect();
            metrics.push(mean(&format!("mean {name}"), &numbers, Bounds::NONE));
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
        let metrics = metrics(&rows, &values, &[("killed", vec![1.0, 2.0, 3.0, 4.0, 9.0])]);
        let found: Vec<_> = metrics.iter().map(|row| (row.split.as_str(), row.metric.as_str(), row.value)).collect();
        assert_eq!(
            found,
            [
                ("dev", "rows", 4.0),
                ("dev", "problems", 2.0),
                ("dev", "share of a", 0.75),
                ("dev", "share of b", 0.25),
                ("dev", "mean killed", 2.5),
                ("train", "rows", 1.0),
                ("train", "problems", 1.0),
                ("train", "share of c", 1.0),
                ("train", "mean killed", 9.0)
            ]
        );
    }

    #[test]
    fn a_share_has_an_interval_over_problems_and_equal_numbers_have_none() {
        let row = |problem: usize| PlacedRow { problem_id: problem.to_string(), split: "dev".to_owned() };
        let values = ["a", "b", "a", "b", "b"].map(str::to_owned);
        let metrics = metrics(&[1, 1, 2, 2, 2].map(row), &values, &[("killed", vec![4.0; 5])]);
        let share = metrics.iter().find(|row| row.metric == "share of a").unwrap();
        let [low, high] = [share.ci_low, share.ci_high].map(Option::unwrap);
        // By engine/src/statistics/expected.py: one of two rows, and one of three.
        let expected = [0.164_839_734_037_423_66, 0.757_968_339_999_312_7];
        assert!((low - expected[0]).abs() < 1e-9 && (high - expected[1]).abs() < 1e-9, "{share:?}");
        let mean = metrics.iter().find(|row| row.metric == "mean killed").unwrap();
        assert_eq!((mean.value, mean.ci_low, mean.ci_high), (4.0, None, None));
    }

    #[test]
    fn a_column_that_is_not_there_is_named_with_those_that_are() {
        let table = PlacedRow::write(&[]).unwrap();
        let error = texts(&table, "mutatoin").unwrap_err().to_string();
        assert!(error.contains("`mutatoin`") && error.contains("problem_id, split"), "{error}");
    }
}
