//! One thread's share: requests come in as room appears, every turn draws one token for each sequence still open.

use super::cache::{Page, PagePool, layer_offset, store};
use super::sampling::Sampler;
use super::stop::Stops;
use super::{Completion, Draw, Finish, Request, Sampling};
use crate::crew::{self, Crew};
use crate::model::{LayerActivations, Model, Network, documents_forward, embed, layer_forward, sized};
use crate::ops::attention::Scratch;
use crate::ops::matmul::MatMul;
use crate::ops::paged_attention::{Cached, PagedAttention};
use crate::{Error, Result};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Sequences that a thread steps together; a request with more draws is taken alone.
const ROWS: usize = 96;

/// What all threads work on.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) model: &'a Model,
    pub(crate) network: &'a Network,
    pub(crate) requests: &'a [Request],
    pub(crate) sampling: &'a Sampling,
    pub(crate) stop: &'a Stops,
    /// Tokens that prompt and completion may have together.
    pub(crate) positions: usize,
}

impl Job<'_> {
    /// Draws everything: each thread of the pool takes requests from the list and steps its own sub-batch; one that finds
    /// the list empty helps the others.
    pub(crate) fn run(
        self,
        pool: &rayon::ThreadPool,
        cancelled: &(dyn Fn() -> bool + Sync),
        on_request: &(dyn Fn(usize, &[Completion]) + Sync),
    ) -> Result<Vec<Vec<Completion>>> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<Vec<Completion>>>> = self.requests.iter().map(|_| Mutex::default()).collect();
        let failure: Mutex<Option<Error>> = Mutex::default();
        let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
        let draw = || {
            let mut worker = Worker::new(self);
            let mut finished = |index: usize, completions: Vec<Completion>| {
                on_request(index, &completions);
                *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(completions);
            };
            loop {
                if cancelled() {
                    failed().get_or_insert(Error::Cancelled);
                }
                if failed().is_some() {
                    break;
                }
                let outcome = worker.turn(|| next.fetch_add(1, Ordering::Relaxed), &mut finished);
                match outcome {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        failed().get_or_insert(error);
                    }
                }
            }
        };
        let crew = Crew::new(pool.current_num_threads());
        pool.broadcast(|context| crew.serve(context.index(), draw));
        if let Some(error) = failed().take() {
            return Err(error);
        }
        let results = results.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(results.map(Option::unwrap_or_default).collect())
    }
}

/// A request in progress: its prompt's cache and the draws still open.
struct Group {
    index: usize,
    prompt: Vec<Page>,
    open: Vec<Sequence>,
    done: Vec<Option<Completion>>,
}

struct Sequence {
    nth: usize,
    draw: Draw,
    pages: Vec<Page>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

/// A thread's sub-batch.
pub(crate) struct Worker<'a> {
    job: Job<'a>,
    pages: PagePool,
    groups: Vec<Group>,
    waiting: Option<usize>,
    layer: LayerActivations,
    attention: Scratch,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    stream: Vec<f32>,
    normed: Vec<f32>,
    stats: Vec<f32>,
    logits: Vec<f32>,
}

impl Buffers {
    /// The logits (N, V) after some rows of the residual stream.
    fn logits(&mut self, job: Job, rows: Range<usize>) -> &[f32] {
        let Job { model, network, .. } = job;
        let (channels, count) = (network.channels, rows.len());
        let x = &self.stream[rows.start * channels..rows.end * channels];
        let normed = sized(&mut self.normed, count * channels);
        network.norm(normed, sized(&mut self.stats, 2 * count), x, model.weights(), &model.layout.norm);
        let logits = sized(&mut self.logits, count * network.vocabulary);
        network.cpu.linear(logits, normed, &network.head, count, false);
        logits
    }
}

impl<'a> Worker<'a> {
    pub(crate) fn new(job: Job<'a>) -> Self {
        Self {
            job,
            pages: PagePool::new(job.network),
            groups: Vec::new(),
            waiting: None,
            layer: LayerActivations::default(),
            attention: Scratch::default(),
            buffers: Buffers::default(),
        }
    }

    /// Takes in the next request if there is room, or draws one token for every open sequence; false when all is done.
    pub(crate) fn turn(
        &mut self,
        mut next: impl FnMut() -> usize,
        finished: &mut impl FnMut(usize, Vec<Completion>),
    ) -> Result<bool> {
        let waiting = self.waiting.take().unwrap_or_else(&mut next);
        let open: usize = self.groups.iter().map(|group| group.open.len()).sum();
        match self.job.requests.get(waiting) {
            Some(request) if open == 0 || open + request.draws.len() <= ROWS => self.admit(waiting)?,
            None if open == 0 => return Ok(false),
            _ => {
                self.waiting = Some(waiting);
                self.step()?;
            }
        }
        for group in self.groups.extract_if(.., |group| group.open.is_empty()) {
            let Group { index, mut prompt, done, .. } = group;
            self.pages.release(&mut prompt);
            finished(index, done.into_iter().flatten().collect());
        }
        Ok(true)
    }

    /// Computes a prompt, once for all its draws, and draws their first tokens.
    fn admit(&mut self, index: usize) -> Result<()> {
        let Job { model, network, requests, .. } = self.job;
        let Request { prompt, draws } = &requests[index];
        let Network { channels, heads, .. } = *network;
        let mut group = Group { index, prompt: Vec::new(), open: Vec::new(), done: vec![None; draws.len()] };
        if draws.is_empty() {
            self.groups.push(group);
            return Ok(());
        }
        self.pages.grow(&mut group.prompt, prompt.len());
        let Buffers { stream, positions, .. } = &mut self.buffers;
        positions.clear();
        positions.extend(0..prompt.len() as u32);
        let x = sized(stream, prompt.len() * channels);
        embed(network, model.weights(), prompt, positions, x);
        #[expect(clippy::single_range_in_vec_init, reason = "one document")]
        let documents = [0..prompt.len()];
        for layer in 0..network.layers.len() {
            let row = (&positions[..], &documents[..]);
            documents_forward(network, model.weights(), layer, x, row, &mut self.layer, &mut self.attention);
            for (position, qkv) in self.layer.qkv.chunks_exact(heads.stride()).take(prompt.len()).enumerate() {
                store(network, layer, &mut group.prompt, position, qkv);
            }
        }
        let logits = self.buffers.logits(self.job, prompt.len() - 1..prompt.len());
        let new = |(nth, draw): (usize, &Draw)| Sequence {
            nth,
            draw: *draw,
            pages: Vec::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
        };
        group.open.extend(draws.iter().enumerate().map(new));
        let outcomes = advance(self.job, group.open.iter_mut().map(|sequence| (sequence, logits, &prompt[..])));
        group.sort(outcomes, &mut self.pages)?;
        self.groups.push(group);
        Ok(())
    }

    /// One token for every open sequence.
    fn step(&mut self) -> Result<()> {
        let Job { model, network, requests, .. } = self.job;
        let Network { cpu, channels, heads, vocabulary, .. } = *network;
        let Buffers { tokens, positions, stream, .. } = &mut self.buffers;
        tokens.clear();
        positions.clear();
        for group in &mut self.groups {
            let prompt = requests[group.index].prompt.len();
            for sequence in &mut group.open {
                // The last token drawn is read now: it comes after the prompt and the tokens before it.
                let before = sequence.tokens.len() - 1;
                tokens.push(sequence.tokens[before]);
                positions.push((prompt + before) as u32);
                self.pages.grow(&mut sequence.pages, before + 1);
            }
        }
        let rows = tokens.len();
        let x = sized(stream, rows * channels);
        embed(network, model.weights(), tokens, positions, x);
        for index in 0..network.layers.len() {
            let groups = &mut self.groups;
            let attend = |attended: &mut [f32], _: &mut Vec<f32>, qkv: &[f32]| {
                let mut row = 0;
                for group in groups {
                    let here = &qkv[row * heads.stride()..];
                    for (sequence, qkv) in group.open.iter_mut().zip(here.chunks_exact(heads.stride())) {
                        store(network, index, &mut sequence.pages, sequence.tokens.len() - 1, qkv);
                    }
                    let prompt = Cached { pages: &group.prompt[..], length: requests[group.index].prompt.len() };
                    let own = group.open.iter().map(|s| Cached { pages: &s.pages[..], length: s.tokens.len() });
                    let own: Vec<_> = own.collect();
                    let (out, offset) = (&mut attended[row * heads.width()..], layer_offset(network, index));
                    let window = network.layers[index].window;
                    cpu.paged_attention(out, here, &prompt, &own, offset, heads, window);
                    row += group.open.len();
                }
            };
            layer_forward(network, model.weights(), index, x, positions, &mut self.layer, attend);
        }
        let logits = self.buffers.logits(self.job, 0..rows);

        let open = self.groups.iter_mut().flat_map(|group| {
            let prompt = &requests[group.index].prompt[..];
            group.open.iter_mut().map(move |sequence| (sequence, prompt))
        });
        let turns = open.zip(logits.chunks_exact(vocabulary));
        let outcomes = advance(self.job, turns.map(|((sequence, prompt), logits)| (sequence, logits, prompt)));
        let mut outcomes = outcomes.into_iter();
        for group in &mut self.groups {
            let here = outcomes.by_ref().take(group.open.len()).collect();
            group.sort(here, &mut self.pages)?;
        }
        Ok(())
    }
}

impl Group {
    /// Parts the sequences that have ended from those still open.
    fn sort(&mut self, outcomes: Vec<Result<Option<Completion>>>, pages: &mut PagePool) -> Result<()> {
        let mut still = Vec::with_capacity(self.open.len());
        for (mut sequence, outcome) in self.open.drain(..).zip(outcomes) {
            match outcome? {
                Some(completion) => {
                    pages.release(&mut sequence.pages);
                    self.done[sequence.nth] = Some(completion);
                }
                None => still.push(sequence),
            }
        }
        self.open = still;
        Ok(())
    }
}

thread_local! {
    static SAMPLER: RefCell<Sampler> = RefCell::default();
}

/// Draws the next token of some sequences, each from its logits and after its prompt; gives the completions that end so.
fn advance<'s>(
    job: Job,
    turns: impl Iterator<Item = (&'s mut Sequence, &'s [f32], &'s [u32])>,
) -> Vec<Result<Option<Completion>>> {
    let turns: Vec<_> = turns.collect();
    let mut outcomes: Vec<_> = turns.iter().map(|_| Ok(None)).collect();
    crew::each(turns.into_iter().zip(&mut outcomes), |((sequence, logits, prompt), outcome)| {
        *outcome = SAMPLER.with_borrow_mut(|sampler| advance_one(job, sampler, logits, prompt, sequence));
    });
    outcomes
}

/// Draws a sequence's next token from its logits; gives the completion if that ends it.
fn advance_one(
    job: Job,
    sampler: &mut Sampler,
    logits: &[f32],
    prompt: &[u32],
    sequence: &mut Sequence,
) -> Result<Option<Completion>> {
    let Job { model, network, sampling, stop, positions, .. } = job;
    let position = sequence.tokens.len();
    let seen = [prompt, &sequence.tokens];
    let (token, logprob) = sampler.choose(network.cpu.level(), logits, sampling, sequence.draw, seen);
    sequence.logprobs.push(logprob);
    let ended = stop.is_end(token);
    if !ended {
        sequence.tokens.push(token);
    }
    let finish = if ended || stop.completed(model, &sequence.tokens)? {
        Finish::Stop
    } else if position + 1 >= sampling.max_tokens || prompt.len() + position + 1 > positions {
        Finish::Length
    } else {
        return Ok(None);
    };
    let mut text = model.tokenizer.decode(&sequence.tokens)?;
    if let Some(at) = stop.cut(&text) {
        text.truncate(at);
    }
    let tokens = std::mem::take(&mut sequence.tokens);
    let logprobs = std::mem::take(&mut sequence.logprobs);
    let logprob = logprobs.iter().fold(0.0, |sum, logprob| sum + logprob);
    Ok(Some(Completion { tokens, text, logprob, logprobs, finish }))
}
