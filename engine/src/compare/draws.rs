//! The draws behind a problem on both sides: the rows that each side's own stage was computed from.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};

use super::tasks::{Tasks, matched};
use super::{CompareError, Comparison, Side};
use crate::cache::{CacheError, Digest, OutputType, PartGroup, Store};
use crate::runs::RunNode;
use crate::table::{TableError, TableFile, read_column};

/// A problem's rows on one side.
#[derive(Clone, Debug)]
pub struct ProblemDraws {
    /// The stage whose figures they are behind.
    pub stage: String,
    /// The node that gave them.
    pub node: String,
    /// The rows, in their order.
    pub rows: RecordBatch,
}

/// Rows of a table that are read at a time.
const PIECE: usize = 1024;

impl Comparison {
    /// The draws of a problem on the baseline and on the last side: of the split in which it flips, else of the first one
    /// that both have it in.
    ///
    /// # Errors
    /// [`CompareError::NoProblem`] names the side that does not have it; or the store can't be read.
    pub fn draws_of(&self, store: &Store, problem: &str) -> Result<[ProblemDraws; 2], CompareError> {
        let (baseline, place) = (&self.sides[0], self.sides.len() - 1);
        let side = &self.sides[place];
        let flipped = self
            .flips
            .iter()
            .filter(|flips| flips.side == place)
            .find(|flips| flips.won.iter().chain(&flips.lost).any(|flipped| flipped == problem));
        let stages = match flipped {
            Some(flips) => Some((flips.baseline_stage.as_str(), flips.stage.as_str())),
            None => side.outcomes.iter().find_map(|(split, theirs)| {
                let has = |tasks: &Tasks| tasks.keys().any(|task| task.problem_id == problem);
                let mut pairs = matched(baseline.outcomes.get(split)?, theirs).into_iter();
                let pair = pairs.find(|((_, ours), (_, theirs))| has(ours) && has(theirs));
                pair.map(|((ours, _), (theirs, _))| (ours, theirs))
            }),
        };
        let Some((ours, theirs)) = stages else {
            let without = if baseline.has(problem) { side } else { baseline };
            return Err(CompareError::NoProblem { side: without.name(), problem: problem.to_owned() });
        };
        Ok([baseline.draws(store, ours, problem)?, side.draws(store, theirs, problem)?])
    }
}

impl Side {
    fn has(&self, problem: &str) -> bool {
        let tasks = self.outcomes.values().flat_map(|stages| stages.values());
        tasks.flat_map(|tasks| tasks.keys()).any(|task| task.problem_id == problem)
    }

    /// The problem's rows in the table that a stage read.
    fn draws(&self, store: &Store, stage: &str, problem: &str) -> Result<ProblemDraws, CompareError> {
        let no_rows = || CompareError::NoRows { side: self.name(), stage: stage.to_owned() };
        let key = self.node(stage).and_then(|node| node.key).ok_or_else(no_rows)?;
        let record = store.recorded_action(&key)?.ok_or_else(no_rows)?;
        let ports = record.parts.iter().filter(|part| part.group == PartGroup::Input).map(|part| part.name.as_str());
        // What is evaluated stands at `rows`; another kind may call it otherwise.
        let mut ports: Vec<&str> = ports.collect();
        ports.sort_by_key(|port| *port != "rows");
        for digest in ports.into_iter().filter_map(|port| record.input(port)) {
            let table = match store.table_file(&digest) {
                Ok(table) if table.schema().index_of("problem_id").is_ok() => table,
                Err(CacheError::Lost { .. }) => return Err(no_rows()),
                Ok(_) | Err(CacheError::Table(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let rows = rows_of(&table, problem)?;
            return Ok(ProblemDraws { stage: stage.to_owned(), node: self.giver(&digest), rows });
        }
        Err(no_rows())
    }

    /// The node that gave a table: of several that gave the same, one of this round and this variant.
    fn giver(&self, digest: &Digest) -> String {
        let nodes = self.run.record.nodes.iter().filter(|node| {
            node.outputs.values().any(|output| output.output_type == OutputType::Table && output.digest == *digest)
        });
        let rank = |node: &&RunNode| (node.round == self.round, node.variant.contains(&self.variant));
        nodes.max_by_key(rank).map(|node| node.id.clone()).unwrap_or_default()
    }
}

fn rows_of(table: &TableFile, problem: &str) -> Result<RecordBatch, CompareError> {
    let mut found = Vec::new();
    for piece in table.pieces(PIECE)? {
        let piece = piece?;
        let ids: Vec<String> = read_column(&piece, "problem_id").map_err(TableError::from)?;
        let rows = ids.iter().zip(0..).filter(|(id, _)| *id == problem).map(|(_, row)| row);
        found.push(take_record_batch(&piece, &UInt32Array::from_iter_values(rows)).map_err(TableError::from)?);
    }
    Ok(concat_batches(&table.schema(), &found).map_err(TableError::from)?)
}
