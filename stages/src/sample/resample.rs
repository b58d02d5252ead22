//! Kind `resample`: another model writes the fixes to the rationales of samples.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{Context, Environment, Inputs, Item, ParamError, Port, RowStage, Setup, StageError};
use tracetune_kernels::decode::Draw;

use super::{Asked, CandidateRow, GREEDY, Params, Precision, PromptRow, Sample, Session, too_long};
use crate::prompt::{self, FixFormat};

record! {
    /// A sample whose rationale is given on.
    pub struct ReasonedRow {
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
        /// Number of the draw that wrote the rationale.
        pub sample: i32,
        /// The explanation, without the fix.
        pub rationale: String,
    }
}

/// What may stand under `kind = "resample"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResampleParams {
    /// Softmax temperature of the fix; 0 takes the likeliest. The fix to a greedy rationale is greedy always.
    #[schemars(range(min = 0.0))]
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens whose probabilities reach this; 1 keeps all.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: f32,
    /// How the model's weights are kept while it samples: fewer bytes are faster, and rounded.
    pub precision: Precision,
    /// Longest fix, in tokens.
    #[schemars(range(min = 1))]
    pub max_tokens: usize,
    /// Strings that end a fix; not part of it.
    pub stop: Vec<String>,
    /// Template of the prompt: `builtin:NAME` or a file.
    pub prompt: String,
    /// Whether the prompt shows the execution.
    pub trace: bool,
    /// How the fix stands in the completion.
    pub fix_format: FixFormat,
    /// Solved examples shown first, from the port `exemplars`.
    pub shots: usize,
    /// Seed of the draws; the pipeline's unless given.
    pub seed: u64,
    /// Requests at once, if the model is an endpoint.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: usize,
    /// Longest wait for one answer of an endpoint, in seconds.
    #[schemars(range(min = 1))]
    pub timeout_s: u64,
}

impl Default for ResampleParams {
    fn default() -> Self {
        let Params {
            top_p,
            precision,
            max_tokens,
            stop,
            prompt,
            trace,
            fix_format,
            shots,
            seed,
            concurrency,
            timeout_s,
            ..
        } = Params::default();
        Self {
            temperature: 0.0,
            top_p,
            precision,
            max_tokens,
            stop,
            prompt,
            trace,
            fix_format,
            shots,
            seed,
            concurrency,
            timeout_s,
        }
    }
}

impl ResampleParams {
    fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// The same, as `sample` has it.
    fn sampling(&self) -> Params {
        let Self { top_p, precision, max_tokens, trace, fix_format, shots, seed, concurrency, timeout_s, .. } = *self;
        Params {
            n: 1,
            greedy: self.is_greedy(),
            temperature: if self.is_greedy() { 1.0 } else { self.temperature },
            top_p,
            precision,
            max_tokens,
            stop: self.stop.clone(),
            prompt: self.prompt.clone(),
            trace,
            rationale: true,
            fix_format,
            shots,
            seed,
            concurrency,
            timeout_s,
            ..Params::default()
        }
    }
}

impl tracetune_engine::stage::Params for ResampleParams {
    fn validate(&self) -> Result<(), ParamError> {
        self.sampling().validate()
    }
}

/// Another model, often a smaller one, reads a sample's rationale with the fix removed, and writes a fix of its own:
/// the better the rationale, the more of these pass. One fix for each rationale; `verify` and `evaluate` after it give
/// the proxy's pass@k over the rationales.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), Table 2, proxy-based evaluation. The prompt is the one of `sample`,
/// followed by the rationale; prompt, completion, fix and the rest of a sample's columns are the new ones, `sample` and
/// `rationale` stay. A model behind an API is given the rationale at the end of its prompt.
pub struct Resample;

impl RowStage for Resample {
    const KIND: &'static str = "resample";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "another model writes a fix for each sample's rationale: how good are the rationales?";
    type Params = ResampleParams;
    type In = ReasonedRow;
    type Out = CandidateRow;
    type Session = Session;

    fn ports() -> Vec<Port> {
        Sample::ports()
    }

    const PART_PARAMS: &'static [&'static str] = &["concurrency", "timeout_s"];

    fn segment_items(_: &ResampleParams) -> usize {
        1024
    }

    fn environment(params: &ResampleParams, setup: &Setup) -> Result<Environment, StageError> {
        Sample::environment(&params.sampling(), setup)
    }

    fn open(params: &ResampleParams, inputs: &Inputs, cx: &Context) -> Result<Session, StageError> {
        Sample::open(&params.sampling(), inputs, cx)
    }

    fn rows(
        session: &mut Session,
        params: &ResampleParams,
        items: &[Item<ReasonedRow>],
        cx: &Context,
    ) -> Result<Vec<Vec<CandidateRow>>, StageError> {
        let ask = |item: &Item<ReasonedRow>| {
            let ReasonedRow { instruction, buggy, tests, test, trace, got, sample, rationale } = item.row.clone();
            let view = PromptRow { instruction, buggy, tests, test, trace, got }.view(params.trace);
            let mut prompt = session.template.render(&view, &session.settings, 0)?;
            prompt += &prompt::up_to_fix(&rationale, params.fix_format);
            let greedy = params.is_greedy() || sample == GREEDY;
            Ok(Asked { prompt, draws: vec![Draw { seed: item.key.seed(), greedy }] })
        };
        let asked = items.iter().map(ask).collect::<Result<Vec<_>, StageError>>()?;
        let answers = session.draw(&asked, params.concurrency, cx)?;
        let rows = items.iter().zip(asked).zip(answers);
        Ok(rows.map(|((item, asked), answer)| vec![params.row(&item.row, asked.prompt, answer)]).collect())
    }
}

impl ResampleParams {
    fn row(&self, row: &ReasonedRow, prompt: String, answer: Option<super::Answer>) -> CandidateRow {
        let answer = answer.unwrap_or_else(too_long);
        let opened = prompt::before_fix(self.fix_format).to_owned() + &answer.text;
        let text = self.sampling().whole(&opened, &answer.finish).into_owned();
        CandidateRow {
            sample: row.sample,
            prompt,
            fix: prompt::parse(&text, &row.buggy, self.fix_format, false).fix,
            completion: answer.text,
            rationale: row.rationale.clone(),
            finish: answer.finish,
            tokens: answer.tokens,
            logprob: answer.logprob,
        }
    }
}
