//! One thread's share: requests come in as room appears, every turn draws one token for each sequence still open.

use super::cache::{Page, PagePool, layer_offset, page_bytes, pages_for, store};
use super::sampling::Sampler;
use super::stop::Stops;
use super::{Completion, Draw, Finish, Request, Sampling};
use crate::crew::{self, Crew};
use crate::model::{LayerActivations, Model, Network, documents_forward, embed, layer_forward, sized};
use crate::ops::attention::Scratch;
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
    /// Most bytes of keys and values.
    pub(crate) cache_bytes: Option<u64>,
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
        let threads = pool.current_num_threads();
        let (leaders, pages) = self.share_pages(threads)?;
        let draw = |index: usize| {
            if index >= leaders {
                return;
            }
            let mut worker = Worker::new(self, pages);
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
        let crew = Crew::new(threads);
        pool.broadcast(|context| crew.serve(context.index(), || draw(context.index())));
        if let Some(error) = failed().take() {
            return Err(error);
        }
        let results = results.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(results.map(Option::unwrap_or_default).collect())
    }
}

impl Job<'_> {
    /// How many threads have sequences of their own, and the pages of each: enough for the longest sequence alone.
    fn share_pages(&self, threads: usize) -> Result<(usize, usize)> {
        let Some(limit) = self.cache_bytes else { return Ok((threads, usize::MAX)) };
        let most = usize::try_from(limit).unwrap_or(usize::MAX) / page_bytes(self.network);
        for (index, Request { prompt, .. }) in self.requests.iter().enumerate() {
            let needed = self.longest(prompt);
            if needed > most {
                let mib = |pages: usize| (pages * page_bytes(self.network)).div_ceil(1 << 20);
                let message = format!(
                    "its keys and values take up to {} MiB, more than the {} MiB there are for them",
                    mib(needed),
                    limit >> 20
                );
                return Err(Error::Request { index, message });
            }
        }
        let longest = self.requests.iter().map(|request| self.longest(&request.prompt)).max().unwrap_or(1).max(1);
        let leaders = (most / longest).clamp(1, threads);
        Ok((leaders, most / leaders))
    }

    /// Pages of a prompt and its longest completion.
    fn longest(&self, prompt: &[u32]) -> usize {
        pages_for(prompt.len())
            + pages_for(self.sampling.max_tokens.min(self.positions.saturating_sub(prompt.len()) + 1))
    }
}

/// A request in progress: its prompt's cache and the draws still open.
struct Group {
    index: usize,
    prompt: Vec<Page>,
    open: Vec<Sequence>,
    /// Without pages for want of room: what they held is computed anew when there is some.
    paused: Vec<Sequence>,
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
        network.linear(logits, normed, (&network.head, &model.layout.head, model.weights()), count, false);
        logits
    }
}

impl<'a> Worker<'a> {
    /// With at most so many pages.
    pub(crate) fn new(job: Job<'a>, pages: usize) -> Self {
        Self {
            job,
            pages: PagePool::new(job.network, pages),
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
        self.resume();
        let waiting = self.waiting.take().unwrap_or_else(&mut next);
        let open = self.open();
        // Whoever is paused goes first. A new request's draws need a page each, and so may those that are open.
        let fits = |request: &Request| {
            let pages = pages_for(request.prompt.len()) + request.draws.len() + open;
            open + request.draws.len() <= ROWS && pages <= self.pages.room()
        };
        match self.job.requests.get(waiting) {
            Some(request) if open == 0 || (fits(request) && self.groups.iter().all(|g| g.paused.is_empty())) => {
                self.admit(waiting)?;
            }
            None if open == 0 => return Ok(false),
            _ => {
                self.waiting = Some(waiting);
                self.step()?;
            }
        }
        for group in self.groups.extract_if(.., |group| group.open.is_empty() && group.paused.is_empty()) {
            let Group { index, mut prompt, done, .. } = group;
            self.pages.release(&mut prompt);
            finished(index, done.into_iter().flatten().collect());
        }
        Ok(true)
    }

    /// Computes a prompt, once for all its draws, and draws their first tokens.
    fn admit(&mut self, index: usize) -> Result<()> {
        let Request { prompt, draws } = &self.job.requests[index];
        let done = vec![None; draws.len()];
        let mut group = Group { index, prompt: Vec::new(), open: Vec::new(), paused: Vec::new(), done };
        if draws.is_empty() {
            self.groups.push(group);
            return Ok(());
        }
        self.fill(prompt, &[], &mut group.prompt, &mut Vec::new());
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

    /// Computes the keys and values of a prompt, unless `prompt_pages` has them, and of the tokens drawn after it.
    fn fill(&mut self, prompt: &[u32], drawn: &[u32], prompt_pages: &mut Vec<Page>, own: &mut Vec<Page>) {
        let Job { model, network, .. } = self.job;
        let Network { channels, heads, .. } = *network;
        let fresh = prompt_pages.is_empty();
        self.pages.grow(prompt_pages, prompt.len());
        self.pages.grow(own, drawn.len());
        let Buffers { tokens, positions, stream, .. } = &mut self.buffers;
        tokens.clear();
        tokens.extend(prompt.iter().chain(drawn));
        positions.clear();
        positions.extend(0..tokens.len() as u32);
        let x = sized(stream, tokens.len() * channels);
        embed(network, model.weights(), tokens, positions, x);
        #[expect(clippy::single_range_in_vec_init, reason = "one document")]
        let documents = [0..tokens.len()];
        for layer in 0..network.layers.len() {
            let row = (&positions[..], &documents[..]);
            documents_forward(network, model.weights(), layer, x, row, &mut self.layer, &mut self.attention);
            for (position, qkv) in self.layer.qkv.chunks_exact(heads.stride()).take(tokens.len()).enumerate() {
                match position.checked_sub(prompt.len()) {
                    Some(position) => store(network, layer, own, position, qkv),
                    None if fresh => store(network, layer, prompt_pages, position, qkv),
                    None => {}
                }
            }
        }
    }

    fn open(&self) -> usize {
        self.groups.iter().map(|group| group.open.len()).sum()
    }

    /// Takes back the pages of the sequences that came last, until there is room for what the others add in a step.
    fn make_room(&mut self) {
        let grows = |sequence: &&Sequence| pages_for(sequence.tokens.len()) > sequence.pages.len();
        while self.open() > 1
            && self.groups.iter().flat_map(|group| &group.open).filter(grows).count() > self.pages.room()
        {
            let Some(group) = self.groups.iter_mut().rfind(|group| !group.open.is_empty()) else { return };
            let Some(mut sequence) = group.open.pop() else { return };
            self.pages.release(&mut sequence.pages);
            group.paused.push(sequence);
            if group.open.is_empty() {
                self.pages.release(&mut group.prompt);
            }
        }
    }

    /// Brings sequences back for which there is room, those that came first before the others.
    fn resume(&mut self) {
        while let Some(at) = self.groups.iter().position(|group| !group.paused.is_empty()) {
            let (open, group) = (self.open(), &self.groups[at]);
            let prompt = &self.job.requests[group.index].prompt;
            let Some(sequence) = group.paused.last() else { return };
            let own = pages_for(sequence.tokens.len());
            let whole = if group.prompt.is_empty() { pages_for(prompt.len()) } else { 0 };
            // Those that are open may each need a page in the next step.
            if open > 0 && (open >= ROWS || whole + own + open > self.pages.room()) {
                return;
            }
            let group = &mut self.groups[at];
            let (mut pages, sequence) = (std::mem::take(&mut group.prompt), group.paused.pop());
            let Some(mut sequence) = sequence else { return };
            let drawn = &sequence.tokens[..sequence.tokens.len() - 1];
            if pages.is_empty() || !drawn.is_empty() {
                self.fill(prompt, drawn, &mut pages, &mut sequence.pages);
            }
            self.groups[at].prompt = pages;
            self.groups[at].open.push(sequence);
        }
    }

    /// One token for every open sequence.
    fn step(&mut self) -> Result<()> {
        self.make_room();
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
