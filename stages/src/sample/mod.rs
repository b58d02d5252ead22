//! Kind `sample`: a model draws repairs.

mod params;

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use tracetune_engine::record;
use tracetune_engine::stage::{Context, Environment, Inputs, Item, Port, PortType, RowStage, Setup, StageError};
use tracetune_engine::table::Record;
use tracetune_kernels::decode::{self, Completion, Draw, Finish, Request, Sampling};
use tracetune_kernels::model::Model;

pub use params::Params;

use crate::model::failed;
use crate::prompt::{self, Settings, Template, View};

/// The number of the greedy draw.
pub const GREEDY: i32 = -1;

record! {
    /// What a prompt is made from.
    pub struct PromptRow {
        /// What the program should do.
        pub instruction: String,
        /// The program to repair.
        pub buggy: String,
        /// Its tests.
        pub tests: Vec<String>,
        /// The failing test.
        pub test: String,
        /// The program annotated with its execution.
        pub trace: String,
        /// What the failing call gave.
        pub got: String,
    }
    /// One draw.
    pub struct CandidateRow {
        /// Number of the draw; [`GREEDY`] is the greedy one.
        pub sample: i32,
        /// What the model read.
        pub prompt: String,
        /// What the model wrote.
        pub completion: String,
        /// Parsed from the completion.
        pub rationale: String,
        /// The whole repaired program; empty if the completion holds none.
        pub fix: String,
        /// `stop`, `length` or `prompt_too_long`.
        pub finish: String,
        /// Tokens in the completion.
        pub tokens: i32,
        /// Sum of the tokens' log-probabilities (natural log).
        pub logprob: f32,
    }
    /// A solved example.
    pub struct ExemplarRow {
        /// What the program should do.
        pub instruction: String,
        /// The program to repair.
        pub buggy: String,
        /// Its tests.
        pub tests: Vec<String>,
        /// The failing test.
        pub test: String,
        /// The program annotated with its execution.
        pub trace: String,
        /// What the failing call gave.
        pub got: String,
        /// The explanation.
        pub rationale: String,
        /// The fix, in the pipeline's fix format.
        pub fix: String,
    }
}

impl PromptRow {
    /// What a template sees of the row.
    pub fn view(&self, with_trace: bool) -> View {
        let annotated = if with_trace { self.trace.as_str() } else { "" };
        View {
            instruction: self.instruction.clone(),
            tests: self.tests.clone(),
            test: self.test.clone(),
            got: if with_trace { self.got.clone() } else { String::new() },
            ..View::of_program(&self.buggy, annotated)
        }
    }
}

impl ExemplarRow {
    fn view(&self, with_trace: bool) -> View {
        let row = PromptRow {
            instruction: self.instruction.clone(),
            buggy: self.buggy.clone(),
            tests: self.tests.clone(),
            test: self.test.clone(),
            trace: self.trace.clone(),
            got: self.got.clone(),
        };
        View { rationale: self.rationale.clone(), fix: self.fix.clone(), ..row.view(with_trace) }
    }
}

/// Draws `n` repairs for each row: a rationale, then the fix.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), Algorithm 1 line 3; nucleus sampling (Holtzman et al. 2020,
/// arXiv:1904.09751). The tokens of a draw depend on its row, its number and the model alone: not on the batch, the
/// other draws or the threads.
///
/// A prompt that leaves no room for `max_tokens` in the model's context gives rows with an empty completion and
/// `finish = "prompt_too_long"`.
pub struct Sample;

/// A loaded model with its template.
pub struct Session {
    model: Model,
    template: Template,
    settings: Settings,
    sampling: Sampling,
}

impl RowStage for Sample {
    const KIND: &'static str = "sample";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "a model draws n rationales and fixes for each row";
    type Params = Params;
    type In = PromptRow;
    type Out = CandidateRow;
    type Session = Session;

    fn ports() -> Vec<Port> {
        vec![
            Port { name: "model", port_type: PortType::Model, optional: false, about: "the model that samples" },
            Port {
                name: "exemplars",
                port_type: PortType::Table(Some(ExemplarRow::schema())),
                optional: true,
                about: "solved examples; the first `shots` of them open each prompt",
            },
        ]
    }

    fn parts(params: &Params) -> Vec<i32> {
        let greedy = params.greedy.then_some(GREEDY);
        greedy.into_iter().chain(0..params.n as i32).collect()
    }

    const PART_PARAMS: &'static [&'static str] = &["n", "greedy"];

    fn segment_items(params: &Params) -> usize {
        // 64 prompts at a time: enough for full batches, and no more lost by a kill than a few seconds' work.
        64 * (params.n + usize::from(params.greedy))
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        Ok(vec![Template::key_part(&params.prompt, setup)?])
    }

    fn open(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Session, StageError> {
        let model = crate::model::load(inputs, "model")?;
        let exemplars = inputs.table("exemplars").map(|rows| exemplars(rows, params)).transpose()?;
        Ok(Session {
            model,
            template: Template::load(&params.prompt, &cx.root)?,
            settings: Settings {
                rationale: params.rationale,
                trace: params.trace,
                exemplars: exemplars.unwrap_or_default(),
            },
            sampling: Sampling {
                temperature: params.temperature,
                top_p: params.top_p,
                top_k: params.top_k,
                max_tokens: params.max_tokens,
                stop: params.stop.clone(),
                ..Sampling::default()
            },
        })
    }

    fn rows(
        session: &mut Session,
        params: &Params,
        items: &[Item<PromptRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<CandidateRow>>, StageError> {
        let groups: Vec<&[Item<PromptRow>]> = items.chunk_by(|a, b| a.row == b.row).collect();
        let mut prompts = Vec::with_capacity(groups.len());
        let mut requests = Vec::with_capacity(groups.len());
        for group in &groups {
            let prompt = session.template.render(&group[0].row.view(params.trace), &session.settings, 0)?;
            let tokens = session.model.tokenizer.encode(&prompt).map_err(failed)?;
            let fits = tokens.len() + params.max_tokens <= session.model.config.max_position_embeddings;
            let draw = |item: &Item<PromptRow>| Draw { seed: item.key.seed(), greedy: item.part == GREEDY };
            requests.push(fits.then(|| Request { prompt: tokens, draws: group.iter().map(draw).collect() }));
            prompts.push(prompt);
        }
        let completions = generate(session, requests, items.len(), cx)?;

        let mut rows = Vec::with_capacity(items.len());
        for ((group, prompt), completions) in groups.iter().zip(prompts).zip(completions) {
            let mut completions = completions.into_iter();
            for item in *group {
                rows.push(vec![candidate(params, item, prompt.clone(), completions.next())]);
            }
        }
        Ok(rows)
    }
}

/// Decodes the requests there are, and gives no completions for the others; progress counts draws of `total`.
fn generate(
    session: &Session,
    requests: Vec<Option<Request>>,
    total: usize,
    cx: &Context,
) -> Result<Vec<Vec<Completion>>, StageError> {
    let asked: Vec<bool> = requests.iter().map(Option::is_some).collect();
    let requests: Vec<Request> = requests.into_iter().flatten().collect();
    let done = AtomicUsize::new(0);
    let finished = |_: usize, completions: &[Completion]| {
        let before = done.fetch_add(completions.len(), Ordering::Relaxed);
        cx.progress((before + completions.len()) as u64, total as u64, "");
    };
    let cancelled = || cx.cancelled();
    let drawn = decode::generate(&session.model, &requests, &session.sampling, cx.threads, &cancelled, &finished)
        .map_err(failed)?;
    let mut drawn = drawn.into_iter();
    Ok(asked.into_iter().map(|asked| if asked { drawn.next().unwrap_or_default() } else { Vec::new() }).collect())
}

/// The output row of a draw; without a completion the prompt was too long.
fn candidate(params: &Params, item: &Item<PromptRow>, prompt: String, completion: Option<Completion>) -> CandidateRow {
    let finish = match completion.as_ref().map(|completion| completion.finish) {
        Some(Finish::Stop) => "stop",
        Some(Finish::Length) => "length",
        None => "prompt_too_long",
    };
    let (text, tokens, logprob) =
        completion.map_or_else(Default::default, |c| (c.text, c.tokens.len() as i32, c.logprob));
    let answer = prompt::parse(&text, &item.row.buggy, params.fix_format, params.rationale);
    CandidateRow {
        sample: item.part,
        prompt,
        completion: text,
        rationale: answer.rationale,
        fix: answer.fix,
        finish: finish.to_owned(),
        tokens,
        logprob,
    }
}

fn exemplars(rows: &RecordBatch, params: &Params) -> Result<Vec<View>, StageError> {
    let rows = ExemplarRow::read(rows)?;
    Ok(rows.iter().take(params.shots).map(|row| row.view(params.trace)).collect())
}
