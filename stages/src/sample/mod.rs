//! Kind `sample`: a model draws repairs.

mod params;
mod remote;
mod resample;

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use tracetune_engine::record;
use tracetune_engine::stage::{Context, Environment, Inputs, Item, Port, PortType, RowStage, Setup, StageError};
use tracetune_engine::table::Record;
use tracetune_kernels::decode::{Completion, Decoder, Draw, Finish, Request, Sampling};
use tracetune_kernels::model::Model;

pub use params::{Params, Precision};
pub use resample::Resample;

use crate::endpoint::Endpoint;
use crate::endpoint::client::{Answer, Client};
use crate::model::failed;
use crate::prompt::{self, FixFormat, Settings, Template, View};

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
        /// What the model wrote, after `start`, which belongs to it.
        pub completion: String,
        /// Parsed from the completion.
        pub rationale: String,
        /// The whole repaired program; empty if the completion holds none.
        pub fix: String,
        /// `stop`, `length`, `prompt_too_long`, or an endpoint's own word, e.g. `content_filter`.
        pub finish: String,
        /// Tokens in the completion.
        pub tokens: i32,
        /// Sum of the tokens' log-probabilities (natural log); NaN if an endpoint gave none.
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
///
/// From a model that is an endpoint (`source = "openai:URL#model"`) each draw is one request, with a seed of its own
/// made from its row's key: more draws ask only for the new ones. Its rows are recorded under their keys like all
/// others, but they are not reproducible: the endpoint may answer otherwise another time.
///
/// # Errors
/// The endpoint can't be reached or is busy, after some tries with growing pauses, or as long as its `retry-after` and
/// `x-ratelimit-*` headers ask; it refuses a request; the environment variable with its key is not set.
pub struct Sample;

/// What draws.
enum Source {
    Local(Box<Decoder<Model>>),
    Remote(Box<Client>),
}

/// What draws, with its template.
pub struct Session {
    source: Source,
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

    const PART_PARAMS: &'static [&'static str] = &["n", "greedy", "concurrency", "timeout_s", "cache_mib"];

    fn segment_items(params: &Params) -> usize {
        // 64 prompts at a time: enough for full batches, and no more lost by a kill than a few seconds' work.
        64 * (params.n + usize::from(params.greedy))
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        let mut parts = vec![Template::key_part(&params.prompt, setup)?];
        if params.precision == Precision::Int8 {
            // Before, activations were not rounded. A new version of the kind would seed every draw anew.
            parts.push(("int8".to_owned(), "activations too".to_owned()));
        }
        if params.fix_format != FixFormat::Edit {
            // Before, the first block was the fix.
            parts.push(("fix".to_owned(), "last complete block".to_owned()));
        }
        Ok(parts)
    }

    fn open(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Session, StageError> {
        let source = match inputs.directory("model").map(Endpoint::load).transpose()?.flatten() {
            Some(endpoint) => Source::Remote(Box::new(remote::open(endpoint, params, cx)?)),
            None => {
                let model = crate::model::load(inputs, "model")?;
                let decoder = Decoder::new(model, usize::MAX, params.precision.into(), cx.threads).map_err(failed)?;
                let bytes = (params.cache_mib > 0).then(|| params.cache_mib.saturating_mul(1 << 20));
                Source::Local(Box::new(decoder.with_cache_limit(bytes)))
            }
        };
        let exemplars = inputs.table("exemplars").map(|rows| exemplars(rows, params)).transpose()?;
        Ok(Session {
            source,
            template: Template::load(&params.prompt, &cx.root)?,
            settings: Settings {
                rationale: params.rationale,
                trace: params.trace,
                fix_format: params.fix_format,
                exemplars: exemplars.unwrap_or_default(),
            },
            sampling: Sampling {
                temperature: params.temperature,
                top_p: params.top_p,
                top_k: params.top_k,
                min_p: params.min_p,
                repetition_penalty: params.repetition_penalty,
                max_tokens: params.max_tokens,
                stop: params.stop.clone(),
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
        let asked = groups
            .iter()
            .map(|group| {
                let prompt = session.template.render(&group[0].row.view(params.trace), &session.settings, 0)?;
                let prompt = prompt + &params.start;
                let draw = |item: &Item<_>| Draw { seed: item.key.seed(), greedy: item.part == GREEDY };
                Ok(Asked { prompt, draws: group.iter().map(draw).collect() })
            })
            .collect::<Result<Vec<_>, StageError>>()?;
        let answers = session.draw(&asked, params.concurrency, cx)?;
        let prompts = asked.into_iter().flat_map(|Asked { prompt, draws }| std::iter::repeat_n(prompt, draws.len()));
        let rows = items.iter().zip(prompts).zip(answers);
        Ok(rows.map(|((item, prompt), answer)| vec![candidate(params, item, prompt, answer)]).collect())
    }
}

/// A prompt and the draws after it.
struct Asked {
    prompt: String,
    draws: Vec<Draw>,
}

impl Session {
    /// An answer for each draw of each prompt, in their order; none where the prompt leaves no room.
    fn draw(&self, asked: &[Asked], concurrency: usize, cx: &Context) -> Result<Vec<Option<Answer>>, StageError> {
        match &self.source {
            Source::Local(decoder) => generate(decoder, &self.sampling, asked, cx),
            Source::Remote(client) => {
                let each = asked
                    .iter()
                    .flat_map(|Asked { prompt, draws }| draws.iter().map(move |draw| (prompt.as_str(), *draw)));
                remote::ask(client, &self.sampling, &each.collect::<Vec<_>>(), concurrency, cx)
            }
        }
    }
}

fn generate(
    decoder: &Decoder<Model>,
    sampling: &Sampling,
    asked: &[Asked],
    cx: &Context,
) -> Result<Vec<Option<Answer>>, StageError> {
    let model = decoder.model();
    let mut fits = Vec::with_capacity(asked.len());
    let mut requests = Vec::with_capacity(asked.len());
    for Asked { prompt, draws } in asked {
        let prompt = model.tokenizer.encode(prompt).map_err(failed)?;
        let has_room = prompt.len() + sampling.max_tokens <= model.config.max_position_embeddings;
        fits.extend(draws.iter().map(|_| has_room));
        requests.extend(has_room.then(|| Request { prompt, draws: draws.clone() }));
    }
    let done = AtomicUsize::new(0);
    let finished = |_: usize, completions: &[Completion]| {
        let before = done.fetch_add(completions.len(), Ordering::Relaxed);
        cx.progress((before + completions.len()) as u64, fits.len() as u64, "");
    };
    let cancelled = || cx.cancelled();
    let drawn = decoder.generate(&requests, sampling, &cancelled, &finished).map_err(failed)?;
    let mut drawn = drawn.into_iter().flatten();
    Ok(fits.iter().map(|fits| if *fits { drawn.next().map(answer) } else { None }).collect())
}

fn answer(completion: Completion) -> Answer {
    let finish = match completion.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    };
    Answer {
        text: completion.text,
        finish: finish.to_owned(),
        tokens: completion.tokens.len() as i32,
        logprob: completion.logprob,
    }
}

/// What stands for the answer to a prompt that leaves no room.
fn too_long() -> Answer {
    Answer { text: String::new(), finish: "prompt_too_long".to_owned(), tokens: 0, logprob: 0.0 }
}

/// The output row of a draw; without an answer the prompt was too long.
fn candidate(params: &Params, item: &Item<PromptRow>, mut prompt: String, answer: Option<Answer>) -> CandidateRow {
    prompt.truncate(prompt.len() - params.start.len());
    let whole = |answer: Answer| Answer { text: params.start.clone() + &answer.text, ..answer };
    let Answer { text, finish, tokens, logprob } = answer.map_or_else(too_long, whole);
    let answer = prompt::parse(&params.whole(&text, &finish), &item.row.buggy, params.fix_format, params.rationale);
    CandidateRow {
        sample: item.part,
        prompt,
        completion: text,
        rationale: answer.rationale,
        fix: answer.fix,
        finish,
        tokens,
        logprob,
    }
}

fn exemplars(rows: &RecordBatch, params: &Params) -> Result<Vec<View>, StageError> {
    let rows = ExemplarRow::read(rows)?;
    Ok(rows.iter().take(params.shots).map(|row| row.view(params.trace)).collect())
}
