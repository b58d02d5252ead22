//! A stage that loses every row fails, unless `allow_empty = true` says that it may.
//!
//! One rule for all kinds, over what a record says, so that a cached result fails as a computed one does: the first output
//! is a table without rows, and there were rows to lose. A stage whose input has no rows loses none: either a stage before
//! it was allowed to lose them, or it reads an output that may well be empty, as a filter's `dropped`. A stage without any
//! table to work on is a source, and a source without rows is a failure.

use crate::cache::{OutputRecord, OutputType};
use crate::pipeline::Node;
use crate::registry::Work;
use crate::stage::{Dropped, PortType};

/// Reasons that are shown.
const SHOWN: usize = 3;

/// What the user is told of a stage that lost every row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub error: String,
    pub help: String,
}

/// The rows that a node works on: of the row port, or of the table ports that must be connected. `None` for a source.
pub(super) fn rows_in<'a>(node: &Node, inputs: impl Iterator<Item = (&'a str, &'a OutputRecord)>) -> Option<u64> {
    let kind = node.stage_kind.kind();
    let ports = kind.ports();
    let row_port = match node.stage_kind.work() {
        Work::Rows(work) => Some(work.shape().port),
        Work::Table(_) => None,
    };
    let is_main = |name: &str| match (row_port, ports.iter().find(|port| port.name == name)) {
        (Some(row_port), _) => name == row_port,
        (None, Some(port)) => !port.optional && matches!(port.port_type, PortType::Table(_)),
        // A port of the user's own naming.
        (None, None) => true,
    };
    let rows = inputs
        .filter(|(port, output)| output.output_type == OutputType::Table && is_main(port))
        .map(|(_, output)| output.rows);
    rows.fold(None, |sum, rows| Some(sum.unwrap_or(0) + rows))
}

/// What to tell of a node with this first output if it lost every row and must not.
pub(super) fn lost_rows(
    node: &Node,
    first: Option<&OutputRecord>,
    rows_in: Option<u64>,
    dropped: &[Dropped],
) -> Option<Lost> {
    let is_empty = first.is_some_and(|output| output.output_type == OutputType::Table && output.rows == 0);
    (is_empty && !node.allow_empty && rows_in != Some(0)).then(|| Lost::new(rows_in, dropped))
}

impl Lost {
    fn new(rows_in: Option<u64>, dropped: &[Dropped]) -> Self {
        let mut error = match rows_in {
            None => "it has no rows".to_owned(),
            Some(1) => "it kept none of its 1 row".to_owned(),
            Some(rows) => format!("it kept none of its {rows} rows"),
        };
        let mut separator = ": ";
        for Dropped { rows, reason, example, .. } in dropped.iter().take(SHOWN) {
            error.push_str(&format!("{separator}{reason} ({rows})"));
            if !example.is_empty() {
                error.push_str(&format!(", e.g. {example}"));
            }
            separator = "; ";
        }
        if dropped.len() > SHOWN {
            error.push_str(&format!("; {} more", dropped.len() - SHOWN));
        }
        let advice = dropped.first().map(|dropped| dropped.help.as_str()).filter(|help| !help.is_empty());
        let allow = "`allow_empty = true` on the stage lets the run go on without rows";
        let help = advice.map_or_else(|| allow.to_owned(), |advice| format!("{advice}; {allow}"));
        Self { error, help }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_reasons_are_named_with_an_example_and_the_first_ones_help() {
        let dropped = [
            Dropped::new(9, "the reference fails its own tests").example("`p`: KeyError: 'x'").help("look at `setup`"),
            Dropped::new(3, "no mutant fails a test"),
            Dropped::new(2, "b"),
            Dropped::new(1, "c"),
        ];
        let lost = Lost::new(Some(15), &dropped);
        assert_eq!(
            lost.error,
            "it kept none of its 15 rows: the reference fails its own tests (9), e.g. `p`: KeyError: 'x'; \
             no mutant fails a test (3); b (2); 1 more"
        );
        assert!(lost.help.starts_with("look at `setup`; `allow_empty = true`"), "{}", lost.help);
    }
}
