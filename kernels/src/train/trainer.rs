//! The loop of gradient steps, one at a time.

use super::lanes::Lanes;
use super::memory::{Economy, lanes, together, within_limit};
use super::plan::Plan;
use super::state;
use super::{Decay, Example, Options, Schedule, StepReport};
use crate::error::pool;
use crate::memory::Cpu;
use crate::model::{Activations, Adapters, Keep, Layout, Model, Network, Row, Tensor, Weights, row_gradient, row_loss};
use crate::ops::adamw::{AdamW, Update, square_sum};
use crate::{Error, Result, math, random};
use rayon::prelude::*;
use std::ops::Range;

/// Elements that one task of the optimizer handles; also the parts of the gradient norm's fixed sum.
const CHUNK: usize = 16_384;

/// The arrays of a checkpoint.
const ARRAYS: [&str; 4] = ["trained", "first_moment", "second_moment", "best"];

/// A training run in progress.
pub struct Trainer<'a> {
    /// What is trained, unless adapters are.
    model: Model,
    examples: &'a [Example],
    unseen: &'a [Example],
    options: Options,
    plan: Plan,
    network: Network,
    pool: rayon::ThreadPool,
    lanes: Lanes,
    /// Rows that go through the network together.
    together: usize,
    /// Whether matrices are packed at every step.
    packed: bool,
    /// The weights with the adapters merged, if there are any.
    merged: Vec<f32>,
    /// AdamW's moments, laid out as what is trained.
    first: Vec<f32>,
    second: Vec<f32>,
    /// What is trained as it was at the lowest loss of the evaluations, where that is to be kept.
    best: Vec<f32>,
    /// For each chunk of what is trained, whether it decays.
    pieces: Vec<(usize, usize, bool)>,
    progress: state::Progress,
}

impl<'a> Trainer<'a> {
    /// Plans the run: nothing is computed yet.
    ///
    /// # Errors
    /// [`Error::Example`], naming its index, if one is longer than a row or than the model's positions, has nothing to
    /// predict, no weight above 0 or a token that the model lacks; [`Error::Options`] if there are no examples, if the
    /// model lacks a matrix that is to be adapted, or if the run does not fit the memory it may take.
    pub fn new(model: Model, examples: &'a [Example], options: &Options) -> Result<Self> {
        let plan = Plan::new(examples, options, &model.config)?;
        let longest = examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
        let mut network = network(&model, options, longest)?;
        if let Some(lora) = &options.lora {
            let adapters = Adapters::new(&model.layout, lora)?;
            let values = adapters.init(random::bits(options.seed, u64::MAX));
            network.adapters = Some((adapters, values));
        }
        let ranges: Vec<(Range<usize>, bool)> = match &network.adapters {
            Some((adapters, _)) => adapters.factors().map(|range| (range, true)).collect(),
            None => model.layout.tensors().iter().map(|tensor| decays(tensor, &model.layout, options.decay)).collect(),
        };
        let pieces = ranges.into_iter().flat_map(|(range, decays)| {
            range.clone().step_by(CHUNK).map(move |at| (at, (at + CHUNK).min(range.end), decays))
        });
        let len = network.adapters.as_ref().map_or(model.weights.len(), |(adapters, _)| adapters.len());
        let Economy { workers, packed, recompute } = within_limit(options, &model.config, &model.layout, len)?;
        let pool = pool(options.threads)?;
        Ok(Self {
            network,
            lanes: Lanes::new(lanes(options, len), workers, Keep { recompute, rounded: options.bf16 }),
            together: together(options, len),
            packed,
            merged: Vec::new(),
            first: zeros(&pool, len),
            second: zeros(&pool, len),
            pool,
            best: vec![0.0; if options.evaluation.keep_best { len } else { 0 }],
            pieces: pieces.collect(),
            progress: state::Progress::new(state::fingerprint(&model, [examples, &[]], options)),
            model,
            examples,
            unseen: &[],
            options: options.clone(),
            plan,
        })
    }

    /// Evaluates the loss on `examples`, as [`Options::evaluation`] says. Their weights count for nothing.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn evaluating(mut self, examples: &'a [Example]) -> Result<Self> {
        // Whatever could not be trained on cannot be evaluated.
        Plan::new(examples, &self.options, &self.model.config)?;
        let tokens = |examples: &[Example]| examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
        let adapters = self.network.adapters.take();
        self.network = network(&self.model, &self.options, tokens(self.examples).max(tokens(examples)))?;
        self.network.adapters = adapters;
        self.progress.fingerprint = state::fingerprint(&self.model, [self.examples, examples], &self.options);
        self.unseen = examples;
        Ok(self)
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.plan.steps
    }

    /// Steps done so far.
    pub fn done(&self) -> usize {
        self.progress.step
    }

    /// Numbers that are trained.
    pub fn trained(&self) -> usize {
        self.first.len()
    }

    /// The model as trained so far, adapters merged; at its lowest evaluation loss, if that is to be kept.
    pub fn finish(mut self) -> Model {
        if self.progress.best_loss.is_some() && !self.best.is_empty() {
            let best = std::mem::take(&mut self.best);
            match &mut self.network.adapters {
                Some((_, values)) => *values = best,
                None => self.model.weights = best,
            }
        }
        self.merge();
        Model { weights: if self.merged.is_empty() { self.model.weights } else { self.merged }, ..self.model }
    }

    /// What the run needs to go on, in the safetensors format.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it can't be written down.
    pub fn checkpoint(&self) -> Result<Vec<u8>> {
        let values = self.network.adapters.as_ref().map_or(&self.model.weights, |(_, values)| values);
        let [w, m, v, best] = ARRAYS;
        let arrays: [(&str, &[f32]); 4] = [(w, values), (m, &self.first), (v, &self.second), (best, &self.best)];
        state::to_bytes(&self.progress, &arrays)
    }

    /// Goes on from a checkpoint: the result is bit-identical to that of an uninterrupted run.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the checkpoint is damaged or of another run; the run is then as it was.
    pub fn resume(&mut self, checkpoint: &[u8]) -> Result<()> {
        let values = trained_values(&mut self.model, &mut self.network);
        let [w, m, v, best] = ARRAYS;
        let mut arrays: [(&str, &mut [f32]); 4] =
            [(w, values), (m, &mut self.first), (v, &mut self.second), (best, &mut self.best)];
        self.progress = state::from_bytes(checkpoint, &self.progress.fingerprint, &mut arrays)?;
        Ok(())
    }

    /// Does one step; none if the run is over, be it early.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or the gradient is not finite; the weights are then as before the step.
    pub fn step(&mut self) -> Result<Option<StepReport>> {
        let step = self.progress.step;
        if step >= self.plan.steps || self.progress.stopped {
            return Ok(None);
        }
        let examples = self.plan.rows(step).flatten().map(|index| &self.examples[*index as usize]);
        let (mut read, mut targets, mut weight) = (0, 0, 0.0);
        for example in examples {
            read += example.tokens.len() as u64 - 1;
            targets += example.targets() as u64;
            weight += f64::from(example.weight) * example.targets() as f64;
        }
        let loss = self.gradient(step, (1.0 / weight) as f32) / weight;
        let (grad_norm, learning_rate) = (self.norm(), self.learning_rate(step));
        if !(loss.is_finite() && grad_norm.is_finite()) {
            return Err(Error::Diverged { step: step + 1, loss: loss as f32, grad_norm });
        }
        self.progress.step += 1;
        self.progress.tokens += read;
        self.progress.target_tokens += targets;
        self.progress.beta1_power *= f64::from(self.options.beta1);
        self.progress.beta2_power *= f64::from(self.options.beta2);
        self.update(learning_rate, grad_norm);
        let every = self.options.evaluation.every;
        let evaluates = step + 1 == self.plan.steps || (every > 0 && (step + 1).is_multiple_of(every));
        let eval_loss = if evaluates && !self.unseen.is_empty() { Some(self.evaluate()) } else { None };
        Ok(Some(StepReport {
            step: step + 1,
            steps: self.plan.steps,
            loss: loss as f32,
            grad_norm,
            learning_rate,
            tokens: self.progress.tokens,
            target_tokens: self.progress.target_tokens,
            eval_loss: eval_loss.map(|loss| loss as f32),
        }))
    }

    /// Has the network multiply with what the weights, or the adapters' factors, now are.
    fn take_over(&mut self) {
        self.merge();
        let Self { model, merged, network, pool, packed, .. } = self;
        if *packed {
            pool.install(|| network.pack(seen(model, merged)));
        }
    }

    /// Makes `merged` what the adapters' factors now say.
    fn merge(&mut self) {
        let Some((adapters, values)) = &mut self.network.adapters else { return };
        if self.merged.is_empty() {
            self.merged.clone_from(&self.model.weights);
        }
        adapters.pack(self.network.cpu, values);
        self.pool.install(|| adapters.merge(self.network.cpu, &self.model.weights, values, &mut self.merged));
    }

    /// Leaves the step's gradient in the lanes; gives the weighted sum of the losses.
    fn gradient(&mut self, step: usize, scale: f32) -> f64 {
        self.take_over();
        let Self { model, merged, examples, plan, network, pool, lanes, first, .. } = self;
        let rows: Vec<&[u32]> = plan.rows(step).collect();
        let rows: Vec<&[&[u32]]> = rows.chunks(self.together).collect();
        let weights = seen(model, merged);
        let gradient = lanes.gradient(pool, (rows.len(), first.len()), |nth, row, kept, gradient| {
            row.clear();
            rows[nth].iter().copied().flatten().for_each(|member| row.add(&examples[*member as usize]));
            row_gradient(network, weights, row, scale, kept, gradient);
        });
        gradient.loss
    }

    /// The mean loss on the examples that are not trained on; remembers the lowest, and whether to go on.
    fn evaluate(&mut self) -> f64 {
        self.take_over();
        let Self { model, merged, unseen, network, pool, .. } = self;
        let weights = seen(model, merged);
        let loss = pool.install(|| {
            let losses: Vec<f64> = unseen
                .par_iter()
                .map_init(<(Row, Activations)>::default, |(row, kept), example| {
                    row.clear();
                    row.add(example);
                    kept.keep.recompute = true;
                    row_loss(network, weights, row, kept)
                })
                .collect();
            losses.iter().sum::<f64>() / unseen.iter().map(|example| example.targets() as f64).sum::<f64>()
        });
        let progress = &mut self.progress;
        // What is not a number is no loss to wait for.
        if progress.best_loss.is_none_or(|best| loss < f64::from_bits(best)) && loss.is_finite() {
            (progress.best_loss, progress.since_best) = (Some(loss.to_bits()), 0);
            if self.options.evaluation.keep_best {
                self.best.copy_from_slice(trained_values(&mut self.model, &mut self.network));
            }
        } else {
            progress.since_best += 1;
            progress.stopped = progress.since_best == self.options.evaluation.patience;
        }
        loss
    }

    /// The gradient's global norm: float64 sums of fixed chunks, added in order.
    fn norm(&mut self) -> f32 {
        let (level, gradient) = (self.network.cpu.level, self.lanes.last());
        let squares = |chunk| square_sum(level, chunk);
        let parts: Vec<f64> = self.pool.install(|| gradient.values.par_chunks(CHUNK).map(squares).collect());
        parts.iter().sum::<f64>().sqrt() as f32
    }

    /// Linear up over the warm-up, then down to `final_lr` at the last step as the schedule says.
    fn learning_rate(&self, step: usize) -> f32 {
        let Options { learning_rate, warmup, final_lr, schedule, .. } = self.options;
        let steps = self.plan.steps as f64;
        let rising = (f64::from(warmup) * steps).ceil();
        let step = step as f64 + 1.0;
        if step <= rising {
            return (f64::from(learning_rate) * step / rising) as f32;
        }
        let part = (step - rising) / (steps - rising).max(1.0);
        let left = match schedule {
            Schedule::Cosine => 0.5 * (1.0 + math::sin_cos(part * std::f64::consts::PI).1),
            Schedule::Linear => 1.0 - part,
            Schedule::Constant => 1.0,
        };
        let floor = f64::from(final_lr);
        (f64::from(learning_rate) * (floor + (1.0 - floor) * left)) as f32
    }

    fn update(&mut self, learning_rate: f32, grad_norm: f32) {
        let Options { beta1, beta2, eps, weight_decay, clip, .. } = self.options;
        let update = Update {
            learning_rate,
            beta1,
            beta2,
            epsilon: eps,
            weight_decay,
            correction1: (1.0 - self.progress.beta1_power) as f32,
            correction2: (1.0 - self.progress.beta2_power) as f32,
            scale: if clip > 0.0 && grad_norm > clip { clip / grad_norm } else { 1.0 },
        };
        let (cpu, gradient) = (self.network.cpu, &self.lanes.last().values);
        let mut w = trained_values(&mut self.model, &mut self.network);
        let (mut m, mut v) = (&mut self.first[..], &mut self.second[..]);
        let mut tasks = Vec::with_capacity(self.pieces.len());
        for (start, end, decays) in &self.pieces {
            let (a, b, c);
            (a, w) = w.split_at_mut(end - start);
            (b, m) = m.split_at_mut(end - start);
            (c, v) = v.split_at_mut(end - start);
            tasks.push((a, b, c, &gradient[*start..*end], *decays));
        }
        self.pool.install(|| {
            tasks.into_par_iter().with_min_len(4).for_each(|(w, m, v, gradient, decays)| {
                let weight_decay = if decays { update.weight_decay } else { 0.0 };
                cpu.adamw(w, m, v, gradient, &Update { weight_decay, ..update });
            });
        });
    }
}

/// Zeros that were written: a page that is first read and then written costs the kernel twice, and all threads a wait.
fn zeros(pool: &rayon::ThreadPool, len: usize) -> Vec<f32> {
    let mut zeros = vec![0.0; len];
    pool.install(|| zeros.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0)));
    zeros
}

/// A network for rows of `positions` tokens at most.
fn network(model: &Model, options: &Options, positions: usize) -> Result<Network> {
    let mut network = Network::new(&model.config, Cpu::new(), positions)?;
    if options.bf16 {
        network.round();
    }
    Ok(network)
}

/// The weights that the network multiplies with: the model's, or those with the adapters merged.
fn seen<'v>(model: &'v Model, merged: &'v [f32]) -> Weights<'v> {
    let own = model.weights();
    if merged.is_empty() { own } else { Weights { values: merged, ..own } }
}

/// A step changes these: the weights, or the adapters' factors.
fn trained_values<'v>(model: &'v mut Model, network: &'v mut Network) -> &'v mut [f32] {
    network.adapters.as_mut().map_or(&mut model.weights[..], |(_, values)| values)
}

fn decays(tensor: &Tensor, layout: &Layout, decay: Decay) -> (Range<usize>, bool) {
    let (range, matrix) = (tensor.range(), tensor.shape.len() > 1);
    let table = range == layout.embedding || Some(&range) == layout.positions.as_ref();
    let decays = match decay {
        Decay::Matrices => matrix,
        Decay::Layers => matrix && !table,
        Decay::All => true,
    };
    (range, decays)
}
