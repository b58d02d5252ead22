//! The engine with toy kinds: whole runs in a temporary folder.

mod bad_rows;
mod changing_files;
mod compare;
mod empty;
mod groups;
mod interruption;
mod loops;
mod plan;
mod pooled;
mod recomputation;
mod recovery;
mod runs;
mod side_by_side;
mod speed;
mod store;
mod support;
