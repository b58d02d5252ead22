//! Experiments over content-addressed tables.
//!
//! One way through: text → [`pipeline::Pipeline`] → plan → schedule → stage → segment → event → run → compare.
//! Nothing here knows a kind, a tensor or a terminal; nothing here prints; no TOML past `pipeline/`.

pub mod accept;
pub mod audit;
pub mod cache;
pub mod compare;
pub mod diagnostic;
pub mod pipeline;
pub mod plan;
pub mod registry;
pub mod runs;
pub mod schedule;
pub mod stage;
pub mod statistics;
pub mod table;

pub use arrow;
pub use registry::Registry;
