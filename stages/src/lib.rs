//! The kinds of code-repair self-training.
//!
//! Nothing here knows how a pipeline is written, cached or scheduled: a kind is a function of rows or tables
//! ([`tracetune_engine::stage`]). No clock and no unseeded randomness.

mod app;
mod column_types;
pub mod columns;
pub mod command;
pub mod dataset;
pub mod endpoint;
pub mod evaluate;
pub mod facts;
pub mod filter;
pub mod function;
pub mod judge;
pub mod metrics;
pub mod model;
pub mod mutate;
mod packages;
pub mod paper;
mod patch;
pub mod probe;
pub mod program;
pub mod prompt;
pub mod python;
pub mod sample;
pub mod sandbox;
mod signatures;
pub mod suite;
pub mod table;
pub mod tally;
#[cfg(test)]
mod testing;
mod tools;
pub mod trace;
pub mod train;
mod values;
pub mod verify;

pub use app::app;
use tracetune_engine::Registry;

/// All kinds: the one list of them.
pub fn registry() -> Registry {
    Registry::new()
        .table::<dataset::Dataset>()
        .row::<suite::Thin>()
        .row::<suite::Adequacy>()
        .row::<suite::Differential>()
        .row::<mutate::Mutate>()
        .table::<mutate::Collect>()
        .table::<tally::Tally>()
        .row::<trace::Trace>()
        .table::<model::ModelKind>()
        .row::<sample::Sample>()
        .row::<sample::Resample>()
        .row::<verify::Verify>()
        .table::<filter::HardTasks>()
        .table::<filter::Filter>()
        .table::<train::Train>()
        .table::<evaluate::Evaluate>()
        .table::<probe::Probe>()
        .table::<command::CommandKind>()
        .table::<function::PythonKind>()
        .table::<table::TableKind>()
}
