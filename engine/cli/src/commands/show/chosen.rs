//! The rows of a table that a user asks for, read piece by piece: memory holds what is shown, not the table.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use tracetune_engine::diagnostic::{instead, nearest};
use tracetune_engine::table::{TableFile, read_column};

use crate::ui::helped;

/// Rows read at a time.
const PIECE: usize = 1024;

/// Rows of one problem or all, with some columns or all.
pub(super) struct Chosen<'a> {
    file: &'a TableFile,
    problem: Option<&'a str>,
    columns: Vec<usize>,
}

impl<'a> Chosen<'a> {
    /// # Errors
    /// The table has no such column, or no column of problems.
    pub(super) fn new(file: &'a TableFile, problem: Option<&'a str>, columns: &[String]) -> anyhow::Result<Self> {
        let schema = file.schema();
        if problem.is_some() && schema.index_of("problem_id").is_err() {
            return Err(helped("the table has no column `problem_id`", "use `--row N`"));
        }
        let columns = match columns {
            [] => (0..schema.fields().len()).collect(),
            names => names.iter().map(|name| place(&schema, name)).collect::<anyhow::Result<_>>()?,
        };
        Ok(Self { file, problem, columns })
    }

    pub(super) fn schema(&self) -> anyhow::Result<Schema> {
        Ok(self.file.schema().project(&self.columns)?)
    }

    /// The rows in order.
    pub(super) fn pieces(&self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<RecordBatch>>> {
        Ok(self.file.pieces(PIECE)?.map(|piece| {
            let piece = piece?;
            let rows = match self.problem {
                None => piece,
                Some(problem) => {
                    let ids: Vec<String> = read_column(&piece, "problem_id")?;
                    let rows = ids.iter().zip(0..).filter(|(id, _)| *id == problem).map(|(_, row)| row);
                    take_record_batch(&piece, &UInt32Array::from_iter_values(rows))?
                }
            };
            Ok(rows.project(&self.columns)?)
        }))
    }

    /// So many rows from `first` on, and how many there are.
    pub(super) fn some(&self, first: usize, count: usize) -> anyhow::Result<(RecordBatch, usize)> {
        let (mut found, mut seen) = (Vec::new(), 0);
        for piece in self.pieces()? {
            let piece = piece?;
            let from = first.saturating_sub(seen).min(piece.num_rows());
            let to = first.saturating_add(count).saturating_sub(seen).min(piece.num_rows());
            found.push(piece.slice(from, to - from));
            seen += piece.num_rows();
            if self.problem.is_none() && seen >= first.saturating_add(count) {
                seen = self.file.rows();
                break;
            }
        }
        Ok((concat_batches(&self.schema()?.into(), &found)?, seen))
    }

    /// Why there is no row of the problem.
    pub(super) fn no_problem(&self, problem: &str) -> anyhow::Result<anyhow::Error> {
        let (mut first, mut near) = (None, Vec::new());
        for piece in self.file.pieces(PIECE)? {
            let ids: Vec<String> = read_column(&piece?, "problem_id")?;
            near.extend(nearest(problem, ids.iter().map(String::as_str)).map(str::to_owned));
            first = first.or_else(|| ids.first().cloned());
        }
        let help = match (nearest(problem, near.iter().map(String::as_str)), first) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(first)) => format!("the first one is `{first}`"),
            (None, None) => "the table is empty".to_owned(),
        };
        Ok(helped(format!("there is no problem `{problem}` in the table"), help))
    }
}

fn place(schema: &SchemaRef, name: &str) -> anyhow::Result<usize> {
    schema.index_of(name).map_err(|_| {
        let known = || schema.fields().iter().map(|field| field.name().as_str());
        let help = instead(name, known(), "its columns are");
        helped(format!("the table has no column `{name}`"), help)
    })
}
