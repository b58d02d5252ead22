//! A temporary project and the toy kinds.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::Registry;
use tracetune_engine::arrow::array::{AsArray, RecordBatch};
use tracetune_engine::arrow::datatypes::{Int64Type, SchemaRef};
use tracetune_engine::cache::{Digest, Store};
use tracetune_engine::pipeline::{Choice, Overrides, Pipeline};
use tracetune_engine::runs::{MetricRow, OutcomeRow};
use tracetune_engine::schedule::{Event, NodeSummary, RunError, RunOptions, RunSummary, run};
use tracetune_engine::stage::{
    Artifact, Context, Dropped, Environment, Inputs, Item, Output, Outputs, Params, Port, PortType, RowStage, Setup,
    StageError, TableStage,
};
use tracetune_engine::table::Record;

/// A project in a temporary folder.
pub(crate) struct Project {
    pub(crate) folder: tempfile::TempDir,
    /// Counts what the toy kinds compute for this project.
    pub(crate) tag: String,
}

impl Project {
    pub(crate) fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    /// A project that another process began.
    pub(crate) fn at(folder: tempfile::TempDir) -> Self {
        let tag = folder.path().display().to_string();
        Self { folder, tag }
    }

    pub(crate) fn store_folder(&self) -> std::path::PathBuf {
        self.folder.path().join(".tracetune")
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.store_folder()).unwrap()
    }

    /// Checks a pipeline with all variants that its text declares. `TAG` in the text becomes the project's tag.
    pub(crate) fn pipeline(&self, text: &str) -> Pipeline {
        let text = format!("[pipeline]\nname = \"toy\"\n{}", text.replace("TAG", &self.tag));
        let (sweep, ablations) = (text.contains("[sweep]"), text.contains("[ablations"));
        let overrides =
            Overrides { variants: Choice { sweep, ablations, ..Choice::default() }, ..Overrides::default() };
        Pipeline::from_text(&text, "toy.toml", self.folder.path(), &registry(), &overrides)
            .unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    pub(crate) fn run(&self, text: &str) -> Ran {
        self.run_with(text, &RunOptions::with_threads(2), &AtomicBool::new(false).into())
    }

    pub(crate) fn run_with(&self, text: &str, options: &RunOptions, cancel: &Arc<AtomicBool>) -> Ran {
        self.run_on(&self.store(), text, options, cancel).unwrap()
    }

    pub(crate) fn run_on(
        &self,
        store: &Store,
        text: &str,
        options: &RunOptions,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Ran, RunError> {
        let events = Mutex::new(Vec::new());
        let observer = |event: Event| {
            if let Event::StageNote { text, .. } = &event
                && text == "please interrupt"
            {
                cancel.store(true, Ordering::Relaxed);
            }
            events.lock().unwrap().push(event);
        };
        let pipeline = self.pipeline(text);
        let before = computed(&self.tag);
        let summary = run(&pipeline, store, options, Arc::clone(cancel), &observer)?;
        Ok(Ran { summary, computed: computed(&self.tag) - before, events: events.into_inner().unwrap() })
    }
}

/// A run that ended.
pub(crate) struct Ran {
    pub(crate) summary: RunSummary,
    /// Items that `double` and `step` computed.
    pub(crate) computed: usize,
    pub(crate) events: Vec<Event>,
}

impl Ran {
    pub(crate) fn node(&self, id: &str) -> &NodeSummary {
        self.summary.nodes.iter().find(|node| node.id == id).unwrap_or_else(|| panic!("no node `{id}`"))
    }
    pub(crate) fn digest(&self, id: &str, output: &str) -> Digest {
        self.node(id).outputs[output].digest
    }
    pub(crate) fn statuses(&self) -> Vec<String> {
        self.summary.nodes.iter().map(|node| format!("{} {}", node.id, node.status.name())).collect()
    }
}

pub(crate) fn int64s(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

pub(crate) fn registry() -> Registry {
    Registry::new()
        .table::<Numbers>()
        .row::<Double>()
        .table::<Sum>()
        .table::<Step>()
        .table::<Keep>()
        .table::<Fail>()
        .table::<Results>()
}

static COMPUTED: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);

fn computed(tag: &str) -> usize {
    COMPUTED.lock().unwrap().get_or_insert_default().get(tag).copied().unwrap_or_default()
}

/// Waits until so many threads of a project are here.
fn meet(tag: &str, threads: usize) {
    static THERE: Mutex<Option<HashMap<(String, std::thread::ThreadId), ()>>> = Mutex::new(None);
    let there = || {
        let mut there = THERE.lock().unwrap();
        let there = there.get_or_insert_default();
        there.insert((tag.to_owned(), std::thread::current().id()), ());
        there.keys().filter(|(other, _)| other == tag).count()
    };
    while threads > 0 && there() < threads {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn count(tag: &str, items: usize) {
    *COMPUTED.lock().unwrap().get_or_insert_default().entry(tag.to_owned()).or_default() += items;
}

tracetune_engine::record! {
    pub(crate) struct Number {
        pub(crate) id: String,
        pub(crate) value: i64,
        pub(crate) extra: String,
    }
    pub(crate) struct DoubleIn {
        pub(crate) id: String,
        pub(crate) value: i64,
    }
    pub(crate) struct DoubleOut {
        pub(crate) part: i32,
        pub(crate) double: i64,
        pub(crate) words: Vec<String>,
    }
    pub(crate) struct Total {
        pub(crate) total: i64,
    }
    pub(crate) struct Outcome {
        pub(crate) split: String,
        pub(crate) problem_id: String,
        pub(crate) samples: i32,
        pub(crate) passes: i32,
    }
}

/// Gives the rows that its parameters list.
pub(crate) struct Numbers;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NumbersParams {
    values: Vec<i64>,
    #[serde(default)]
    extra: String,
}
impl Params for NumbersParams {}

impl TableStage for Numbers {
    const KIND: &'static str = "numbers";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "numbers";
    type Params = NumbersParams;
    fn outputs(_: &NumbersParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(Some(Number::schema())))]
    }
    fn run(params: &NumbersParams, _: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        let rows: Vec<Number> = params
            .values
            .iter()
            .enumerate()
            .map(|(row, &value)| Number { id: format!("n{row}"), value, extra: format!("{}{row}", params.extra) })
            .collect();
        Ok(Outputs::from([("rows", Artifact::Table(Number::write(&rows)?))]))
    }
}

/// `value * 2 + offset + part`: no row for a negative value, two for multiples of five.
pub(crate) struct Double;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DoubleParams {
    tag: String,
    #[serde(default = "one")]
    n: i32,
    #[serde(default)]
    offset: i64,
    #[serde(default = "three")]
    segment: usize,
    /// A file with a number that is added to each row.
    #[serde(default)]
    needs: String,
    /// As `needs`, but in no key: what a kind must not do.
    #[serde(default)]
    reads: String,
    /// How many sessions must be at work before any of them goes on.
    #[serde(default)]
    meet: usize,
    /// The value at which it fails.
    #[serde(default)]
    poison: Option<i64>,
    /// The value at which it asks to be interrupted.
    #[serde(default)]
    interrupt: Option<i64>,
    #[serde(default)]
    sleep_ms: u64,
}
impl Params for DoubleParams {}
fn one() -> i32 {
    1
}
fn three() -> usize {
    3
}

impl RowStage for Double {
    const KIND: &'static str = "double";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "doubles";
    type Params = DoubleParams;
    type In = DoubleIn;
    type Out = DoubleOut;
    type Session = ();
    const SESSION_THREADS: usize = 1;
    const PART_PARAMS: &'static [&'static str] = &["n", "segment", "poison", "interrupt", "sleep_ms", "meet"];
    fn parts(params: &DoubleParams) -> Vec<i32> {
        (0..params.n).collect()
    }
    fn segment_items(params: &DoubleParams) -> usize {
        params.segment
    }
    fn environment(params: &DoubleParams, setup: &Setup) -> Result<Environment, StageError> {
        match params.needs.as_str() {
            "" => Ok(Vec::new()),
            path => Ok(vec![(format!("file {path}"), setup.digest_file(path)?)]),
        }
    }
    fn open(_: &DoubleParams, inputs: &Inputs, _: &Context) -> Result<(), StageError> {
        assert!(inputs.table("rows").is_none(), "a row stage must not see all rows");
        Ok(())
    }
    fn rows(
        (): &mut (),
        params: &DoubleParams,
        items: &[Item<DoubleIn>],
        cx: &Context,
    ) -> Result<Vec<Vec<DoubleOut>>, StageError> {
        let mut out = Vec::new();
        for (done, item) in items.iter().enumerate() {
            let value = item.row.value;
            if params.poison == Some(value) {
                return Err(StageError::input(format!("{value} is poison")));
            }
            if params.interrupt == Some(value) {
                cx.note("please interrupt");
                while !cx.cancelled() {
                    std::thread::yield_now();
                }
                return Err(StageError::Cancelled);
            }
            std::thread::sleep(std::time::Duration::from_millis(params.sleep_ms));
            count(&params.tag, 1);
            meet(&params.tag, params.meet);
            let file = if params.needs.is_empty() { &params.reads } else { &params.needs };
            let more: i64 = match file.as_str() {
                "" => 0,
                path => std::fs::read_to_string(cx.root.join(path))?.trim().parse().unwrap_or_default(),
            };
            let row = DoubleOut {
                part: item.part,
                double: value * 2 + params.offset + i64::from(item.part) + more,
                words: (0..value.rem_euclid(3)).map(|word| format!("{}-{word}", item.row.id)).collect(),
            };
            let copies = if value < 0 { 0 } else { 1 + usize::from(value % 5 == 0) };
            if copies == 0 {
                let example = format!("`{}`", item.row.id);
                cx.dropped(&Dropped::new(1, "the value is negative").example(example).help("raise it"));
            }
            out.push(vec![row; copies]);
            cx.progress(done as u64 + 1, items.len() as u64, "");
        }
        Ok(out)
    }
}

/// The sum of `double`, divided: small changes give the same bytes.
pub(crate) struct Sum;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SumParams {
    #[serde(default = "thousand")]
    divide: i64,
}
impl Params for SumParams {}
fn thousand() -> i64 {
    1000
}

impl TableStage for Sum {
    const KIND: &'static str = "sum";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "adds up";
    type Params = SumParams;
    fn ports() -> Vec<Port> {
        let schema = tracetune_engine::table::schema_of(vec![tracetune_engine::arrow::datatypes::Field::new(
            "double",
            tracetune_engine::arrow::datatypes::DataType::Int64,
            false,
        )]);
        vec![Port { name: "rows", port_type: PortType::Table(Some(schema)), optional: false, about: "rows" }]
    }
    fn outputs(_: &SumParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("total", PortType::Table(Some(Total::schema())))]
    }
    fn run(params: &SumParams, inputs: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        let total: i64 = int64s(inputs.table("rows").unwrap(), "double").iter().sum();
        let rows = [Total { total: total / params.divide }];
        Ok(Outputs::from([("total", Artifact::Table(Total::write(&rows)?))]))
    }
}

/// One step of a loop: adds one to the total, and has as its metric `scores[total]`.
pub(crate) struct Step;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepParams {
    tag: String,
    scores: Vec<f64>,
}
impl Params for StepParams {}

impl TableStage for Step {
    const KIND: &'static str = "step";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "one step";
    type Params = StepParams;
    fn ports() -> Vec<Port> {
        vec![Port { name: "from", port_type: PortType::Table(Some(Total::schema())), optional: false, about: "before" }]
    }
    fn outputs(_: &StepParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![
            Output::new("to", PortType::Table(Some(Total::schema()))),
            Output::new("metrics", PortType::Table(Some(MetricRow::schema()))),
            Output::new("outcomes", PortType::Table(Some(Outcome::schema()))),
        ]
    }
    fn run(params: &StepParams, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        count(&params.tag, 1);
        cx.note("a step was made");
        let total = int64s(inputs.table("from").unwrap(), "total")[0];
        let value = params.scores[total as usize];
        let metric = MetricRow {
            split: "dev".to_owned(),
            metric: "score".to_owned(),
            k: None,
            value,
            ci_low: None,
            ci_high: Some(1.0),
            n: 3,
        };
        let outcome = Outcome { split: "dev".to_owned(), problem_id: "p".to_owned(), samples: 4, passes: total as i32 };
        Ok(Outputs::from([
            ("to", Artifact::Table(Total::write(&[Total { total: total + 1 }])?)),
            ("metrics", Artifact::Table(MetricRow::write(&[metric])?)),
            ("outcomes", Artifact::Table(Outcome::write(&[outcome])?)),
        ]))
    }
}

/// Has the metrics and outcomes that its parameters list.
pub(crate) struct Results;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultsParams {
    #[serde(default)]
    metrics: Vec<(String, f64)>,
    #[serde(default)]
    outcomes: Vec<Drawn>,
    /// As many more of each task's draws pass, and each metric is as many eighths higher.
    #[serde(default)]
    seed: u8,
}
impl Params for ResultsParams {}

/// A task's draws.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drawn {
    id: String,
    problem: String,
    bug: String,
    #[serde(default)]
    samples: i32,
    #[serde(default)]
    passes: i32,
    greedy: Option<bool>,
}

impl TableStage for Results {
    const KIND: &'static str = "results";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "has results";
    type Params = ResultsParams;
    fn ports() -> Vec<Port> {
        vec![Port { name: "rows", port_type: PortType::Table(None), optional: true, about: "what they are of" }]
    }
    fn outputs(_: &ResultsParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![
            Output::new("metrics", PortType::Table(Some(MetricRow::schema()))),
            Output::new("outcomes", PortType::Table(Some(OutcomeRow::schema()))),
        ]
    }
    fn run(params: &ResultsParams, _: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        let metric = |(metric, value): &(String, f64)| MetricRow {
            split: "test".to_owned(),
            metric: metric.clone(),
            k: None,
            value: *value + f64::from(params.seed) / 8.0,
            ci_low: Some(f64::NAN),
            ci_high: Some(1.0),
            n: 1,
        };
        let outcome = |drawn: &Drawn| OutcomeRow {
            split: "test".to_owned(),
            problem_id: drawn.id.clone(),
            problem_digest: Some(drawn.problem.clone()),
            bug_digest: Some(drawn.bug.clone()),
            tests_digest: None,
            samples: drawn.samples,
            passes: (drawn.passes + i32::from(params.seed)).min(drawn.samples),
            greedy: drawn.greedy,
        };
        let metrics: Vec<MetricRow> = params.metrics.iter().map(metric).collect();
        let outcomes: Vec<OutcomeRow> = params.outcomes.iter().map(outcome).collect();
        Ok(Outputs::from([
            ("metrics", Artifact::Table(MetricRow::write(&metrics)?)),
            ("outcomes", Artifact::Table(OutcomeRow::write(&outcomes)?)),
        ]))
    }
}

/// Writes its table's total into a directory, and reads it from one.
pub(crate) struct Keep;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeepParams {}
impl Params for KeepParams {}

impl TableStage for Keep {
    const KIND: &'static str = "keep";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "keeps";
    type Params = KeepParams;
    fn ports() -> Vec<Port> {
        vec![
            Port { name: "from", port_type: PortType::Table(None), optional: true, about: "a table" },
            Port { name: "model", port_type: PortType::Model, optional: true, about: "a directory" },
        ]
    }
    fn outputs(_: &KeepParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("model", PortType::Model)]
    }
    fn run(_: &KeepParams, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let text = match (inputs.table("from"), inputs.directory("model")) {
            (Some(table), _) => table.num_rows().to_string(),
            (None, Some(folder)) => std::fs::read_to_string(folder.join("sub/rows.txt"))? + "+",
            (None, None) => "nothing".to_owned(),
        };
        let folder = cx.scratch.join("out");
        std::fs::create_dir_all(folder.join("sub"))?;
        std::fs::write(folder.join("sub/rows.txt"), text)?;
        std::fs::write(folder.join("empty"), "")?;
        Ok(Outputs::from([("model", Artifact::Directory(folder))]))
    }
}

/// Fails in the way it is told to.
pub(crate) struct Fail;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailParams {
    how: String,
}
impl Params for FailParams {}

impl TableStage for Fail {
    const KIND: &'static str = "fail";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "fails";
    type Params = FailParams;
    fn ports() -> Vec<Port> {
        vec![Port { name: "from", port_type: PortType::Table(None), optional: true, about: "a table" }]
    }
    fn outputs(_: &FailParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("total", PortType::Table(Some(Total::schema())))]
    }
    fn run(params: &FailParams, _: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        match params.how.as_str() {
            "error" => Err(StageError::environment("no interpreter", "install one")),
            "panic" => panic!("a kind's bug"),
            "no output" => Ok(Outputs::default()),
            "wrong output" => {
                let number = Number { id: "a".to_owned(), value: 1, extra: String::new() };
                Ok(Outputs::from([("total", Artifact::Table(Number::write(&[number])?))]))
            }
            "directory" => Ok(Outputs::from([("total", Artifact::Directory(PathBuf::from("/")))])),
            how => panic!("no such failure: {how}"),
        }
    }
}
