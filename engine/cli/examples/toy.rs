//! A binary with kinds of its own: guessing numbers, in a loop that gets better at it.
//!
//! What a program needs to have the whole command line: `cargo run --example toy -- init demo`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_cli::{App, DoctorLine, Health, Template};
use tracetune_engine::Registry;
use tracetune_engine::runs::{MetricRow, OutcomeRow};
use tracetune_engine::stage::{
    Artifact, Context, Inputs, Item, Output, Outputs, ParamError, Params, Port, PortType, RowStage, StageError,
    TableStage,
};
use tracetune_engine::table::{Record, read_column};

fn main() -> ExitCode {
    let registry = Registry::new().table::<Numbers>().row::<Guess>().row::<Check>().table::<Score>().table::<Learn>();
    let columns = vec![("number", "what is to be guessed"), ("verdict", "`pass` or `fail`")];
    tracetune_cli::main(App {
        registry,
        doctor: vec![arithmetic],
        columns,
        watch: None,
        paper: None,
        tools: Vec::new(),
        templates: vec![Template { name: "guess", text: TEMPLATE, files: &[] }],
    })
}

const TEMPLATE: &str = r#"# Guesses numbers, keeps the good guesses, and learns from them.

[pipeline]
name = "guess"
seed = 7

[params]
guesses = 8

[stages.numbers]
kind = "numbers"
count = 40

[stages.start]
kind = "learn"
rows = "numbers"

[loop.rounds]
times = 3
carry.model = { start = "start", next = "learn" }

[loop.rounds.stages.guess]
kind = "guess"
rows = "numbers"
model = "model"
n = "$guesses"

[loop.rounds.stages.check]
kind = "check"
rows = "guess"

[loop.rounds.stages.learn]
kind = "learn"
rows = "numbers"
model = "model"

[loop.rounds.stages.score]
kind = "score"
rows = "check"
"#;

fn arithmetic() -> DoctorLine {
    DoctorLine { name: "arithmetic".into(), health: Health::Ok, detail: "1 + 1 = 2".into(), help: None }
}

tracetune_engine::record! {
    struct Number { problem_id: String, split: String, number: i32 }
    struct Draw { guess: i32 }
    struct Guessed { number: i32, guess: i32 }
    struct Verdict { verdict: String }
    struct Judged { problem_id: String, split: String, number: i32, verdict: String }
    struct Loss { step: i32, loss: f64 }
}

/// Numbers to guess.
struct Numbers;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NumbersParams {
    /// How many there are.
    #[schemars(range(min = 1))]
    count: i32,
}
impl Params for NumbersParams {}

impl TableStage for Numbers {
    const KIND: &'static str = "numbers";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "gives numbers to guess";
    type Params = NumbersParams;
    fn outputs(_: &NumbersParams, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(Some(Number::schema())))]
    }
    fn run(params: &NumbersParams, _: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        let number = |at: i32| Number { problem_id: format!("n{at}"), split: "test".into(), number: at * 37 % 100 };
        let rows: Vec<Number> = (0..params.count).map(number).collect();
        Ok(Outputs::from([("rows", Artifact::Table(Number::write(&rows)?))]))
    }
}

/// Guesses each number `n` times.
struct Guess;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GuessParams {
    /// Guesses a number.
    #[schemars(range(min = 1))]
    n: i32,
    /// Milliseconds a guess takes.
    #[serde(default)]
    pause_ms: u64,
    /// What the guesses are drawn from.
    seed: u64,
    /// Fails at this number, to see what that looks like.
    #[serde(default)]
    fail_at: Option<i32>,
}
impl Params for GuessParams {
    fn validate(&self) -> Result<(), ParamError> {
        if self.pause_ms > 10_000 {
            let help = Some("nobody waits that long".to_owned());
            return Err(ParamError { param: "pause_ms", message: "must be at most 10000".into(), help });
        }
        Ok(())
    }
}

impl RowStage for Guess {
    const KIND: &'static str = "guess";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "guesses each number n times";
    type Params = GuessParams;
    type In = Number;
    type Out = Draw;
    type Session = i32;
    const PART_PARAMS: &'static [&'static str] = &["n"];
    fn ports() -> Vec<Port> {
        vec![Port { name: "model", port_type: PortType::Model, optional: false, about: "how well it guesses" }]
    }
    fn parts(params: &GuessParams) -> Vec<i32> {
        (0..params.n).collect()
    }
    fn segment_items(_: &GuessParams) -> usize {
        32
    }
    fn open(_: &GuessParams, inputs: &Inputs, _: &Context) -> Result<i32, StageError> {
        let folder = inputs.directory("model").ok_or_else(|| StageError::input("no model"))?;
        let text = std::fs::read_to_string(folder.join("skill.txt"))?;
        text.trim().parse().map_err(|_| StageError::input("`skill.txt` holds no number"))
    }
    fn rows(
        skill: &mut i32,
        params: &GuessParams,
        items: &[Item<Number>],
        cx: &Context,
    ) -> Result<Vec<Vec<Draw>>, StageError> {
        let mut rows = Vec::with_capacity(items.len());
        for (done, item) in items.iter().enumerate() {
            if cx.cancelled() {
                return Err(StageError::Cancelled);
            }
            if params.fail_at == Some(item.row.number) {
                return Err(StageError::environment(
                    format!("can't think of {}", item.row.number),
                    "leave out `fail_at`",
                ));
            }
            std::thread::sleep(std::time::Duration::from_millis(params.pause_ms));
            let spread = (20 / *skill).max(1) as u64;
            let error = ((item.key.seed() ^ params.seed) % (2 * spread + 1)) as i32 - spread as i32;
            rows.push(vec![Draw { guess: item.row.number + error }]);
            cx.progress(done as u64 + 1, items.len() as u64, "");
        }
        Ok(rows)
    }
}

/// Says which guesses are right.
struct Check;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}
impl Params for Nothing {}

impl RowStage for Check {
    const KIND: &'static str = "check";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "says which guesses are right";
    type Params = Nothing;
    type In = Guessed;
    type Out = Verdict;
    type Session = ();
    fn open(_: &Nothing, _: &Inputs, _: &Context) -> Result<(), StageError> {
        Ok(())
    }
    fn rows(_: &mut (), _: &Nothing, items: &[Item<Guessed>], _: &Context) -> Result<Vec<Vec<Verdict>>, StageError> {
        let verdict = |item: &Item<Guessed>| if item.row.guess == item.row.number { "pass" } else { "fail" };
        Ok(items.iter().map(|item| vec![Verdict { verdict: verdict(item).to_owned() }]).collect())
    }
}

/// Counts right guesses.
struct Score;

impl TableStage for Score {
    const KIND: &'static str = "score";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "counts right guesses";
    type Params = Nothing;
    fn ports() -> Vec<Port> {
        vec![Port {
            name: "rows",
            port_type: PortType::Table(Some(Judged::schema())),
            optional: false,
            about: "judged guesses",
        }]
    }
    fn outputs(_: &Nothing, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![
            Output::new("metrics", PortType::Table(Some(MetricRow::schema()))),
            Output::new("outcomes", PortType::Table(Some(OutcomeRow::schema()))),
        ]
    }
    fn run(_: &Nothing, inputs: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        let table = inputs.table("rows").ok_or_else(|| StageError::input("no rows"))?;
        let verdicts = read_column::<String>(table, "verdict")?;
        let n = verdicts.len() as f64;
        let rate = verdicts.iter().filter(|verdict| *verdict == "pass").count() as f64 / n.max(1.0);
        let half = 1.96 * (rate * (1.0 - rate) / n.max(1.0)).sqrt();
        let row = |metric: &str, value: f64, half: Option<f64>| MetricRow {
            split: "test".into(),
            metric: metric.into(),
            k: None,
            value,
            ci_low: half.map(|half| value - half),
            ci_high: half.map(|half| value + half),
            n: n as i64,
        };
        let rows = [row("pass@1", rate, Some(half)), row("guesses", n, None)];
        let mut problems: BTreeMap<(String, i32), (i32, i32)> = BTreeMap::new();
        let numbers = read_column::<i32>(table, "number")?;
        for (problem, verdict) in read_column::<String>(table, "problem_id")?.into_iter().zip(numbers).zip(&verdicts) {
            let (samples, passes) = problems.entry(problem).or_default();
            *samples += 1;
            *passes += i32::from(verdict == "pass");
        }
        let outcome = |((problem_id, number), (samples, passes)): ((String, i32), (i32, i32))| OutcomeRow {
            split: "test".into(),
            problem_id,
            problem_digest: Some(number.to_string()),
            bug_digest: None,
            tests_digest: None,
            samples,
            passes,
            greedy: None,
        };
        let outcomes: Vec<OutcomeRow> = problems.into_iter().map(outcome).collect();
        Ok(Outputs::from([
            ("metrics", Artifact::Table(MetricRow::write(&rows)?)),
            ("outcomes", Artifact::Table(OutcomeRow::write(&outcomes)?)),
        ]))
    }
}

/// Gets better with each round.
struct Learn;

impl TableStage for Learn {
    const KIND: &'static str = "learn";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "makes a model that guesses better than the one it starts from";
    type Params = Nothing;
    fn ports() -> Vec<Port> {
        vec![
            Port {
                name: "rows",
                port_type: PortType::Table(Some(Number::schema())),
                optional: false,
                about: "what to learn",
            },
            Port { name: "model", port_type: PortType::Model, optional: true, about: "where to start" },
        ]
    }
    fn outputs(_: &Nothing, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("model", PortType::Model), Output::new("curve", PortType::Table(Some(Loss::schema())))]
    }
    fn run(_: &Nothing, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let before: i32 = match inputs.directory("model") {
            Some(folder) => std::fs::read_to_string(folder.join("skill.txt"))?.trim().parse().unwrap_or(1),
            None => 1,
        };
        let folder = cx.scratch.join("model");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("skill.txt"), (before * 3).to_string())?;
        cx.note("practice makes perfect");
        let losses: Vec<Loss> = (0..4).map(|step| Loss { step, loss: 1.0 / f64::from(step + before) }).collect();
        let curve = Loss::write(&losses)?;
        Ok(Outputs::from([("model", Artifact::Directory(folder)), ("curve", Artifact::Table(curve))]))
    }
}
