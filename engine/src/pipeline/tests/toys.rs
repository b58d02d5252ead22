//! Kinds that compute nothing: what pipelines are checked against in tests.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Registry;
use crate::stage::{
    Context, Inputs, Item, Output, Outputs, ParamError, Params, Port, PortType, RowStage, StageError, TableStage,
};
use crate::table::Record;

crate::record! {
    pub(super) struct Problem { pub problem_id: String, pub buggy: String }
    pub(super) struct Fix { pub fix: String }
    pub(super) struct Solved { pub problem_id: String, pub fix: String }
    pub(super) struct Verdict { pub verdict: String }
    pub(super) struct Score { pub metric: String }
}

/// Nothing to set.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}
impl Params for Nothing {}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleParams {
    /// Draws a row.
    #[schemars(range(min = 1))]
    n: u32,
    /// Softmax temperature.
    #[serde(default)]
    temperature: f32,
    /// How long a row may take.
    #[serde(default)]
    #[schemars(extend("x-former-name" = "patience_s"))]
    timeout_s: u32,
    seed: u64,
    /// How the fix is written.
    #[serde(default)]
    format: Format,
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// All of it.
    #[default]
    Program,
    /// The lines that change.
    Edit,
}

impl Params for SampleParams {
    fn validate(&self) -> Result<(), ParamError> {
        if self.temperature < 0.0 {
            return Err(ParamError { param: "temperature", message: "must be at least 0".into(), help: None });
        }
        Ok(())
    }
}

pub(super) struct Sample;
impl RowStage for Sample {
    const KIND: &'static str = "sample";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "draws fixes";
    type Params = SampleParams;
    type In = Problem;
    type Out = Fix;
    type Session = ();
    fn ports() -> Vec<Port> {
        vec![Port { name: "model", port_type: PortType::Model, optional: false, about: "the model" }]
    }
    fn open(_: &SampleParams, _: &Inputs, _: &Context) -> Result<(), StageError> {
        Ok(())
    }
    fn rows(_: &mut (), _: &SampleParams, items: &[Item<Problem>], _: &Context) -> Result<Vec<Vec<Fix>>, StageError> {
        Ok(items.iter().map(|_| Vec::new()).collect())
    }
}

pub(super) struct Verify;
impl RowStage for Verify {
    const KIND: &'static str = "verify";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "runs fixes";
    type Params = Nothing;
    type In = Solved;
    type Out = Verdict;
    type Session = ();
    fn open(_: &Nothing, _: &Inputs, _: &Context) -> Result<(), StageError> {
        Ok(())
    }
    fn rows(_: &mut (), _: &Nothing, items: &[Item<Solved>], _: &Context) -> Result<Vec<Vec<Verdict>>, StageError> {
        Ok(items.iter().map(|_| Vec::new()).collect())
    }
}

macro_rules! table_kind {
    ($name:ident, $kind:literal, $open:literal, [$($port:expr),*], [$(($output:literal, $type:expr)),*]) => {
        pub(super) struct $name;
        impl TableStage for $name {
            const KIND: &'static str = $kind;
            const VERSION: u32 = 1;
            const ABOUT: &'static str = "a toy";
            const OPEN_PORTS: bool = $open;
            type Params = Nothing;
            fn ports() -> Vec<Port> {
                vec![$($port),*]
            }
            fn outputs(_: &Nothing, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
                vec![$(Output::new($output, $type)),*]
            }
            fn run(_: &Nothing, _: &Inputs, _: &Context) -> Result<Outputs, StageError> {
                Ok(Outputs::default())
            }
        }
    };
}

fn table(name: &'static str, schema: Option<SchemaRef>) -> Port {
    Port { name, port_type: PortType::Table(schema), optional: false, about: "the rows" }
}

table_kind!(Problems, "problems", false, [], [("rows", PortType::Table(Some(Problem::schema())))]);
table_kind!(Base, "base", false, [], [("model", PortType::Model)]);
table_kind!(
    Train,
    "train",
    false,
    [
        table("rows", Some(Verdict::schema())),
        Port { name: "model", port_type: PortType::Model, optional: true, about: "where it starts" }
    ],
    [("model", PortType::Model), ("curve", PortType::Table(Some(Score::schema())))]
);
table_kind!(
    Evaluate,
    "evaluate",
    false,
    [table("rows", Some(Verdict::schema()))],
    [("metrics", PortType::Table(None))]
);
table_kind!(Command, "command", true, [], [("rows", PortType::Table(None))]);
table_kind!(Join, "join", false, [table("rows", None)], [("rows", PortType::Table(None))]);

pub(super) fn registry() -> Registry {
    Registry::new()
        .row::<Sample>()
        .row::<Verify>()
        .table::<Problems>()
        .table::<Base>()
        .table::<Train>()
        .table::<Evaluate>()
        .table::<Command>()
        .table::<Join>()
}
