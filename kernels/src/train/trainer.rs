//! The loop of gradient steps, one at a time.
//!
//! A step's rows go to a fixed number of lanes; a lane adds its rows' gradients in order into a buffer of its own, and the
//! buffers are added in the lanes' order. Threads only decide who computes a lane, so they change no bits.

use super::plan::Plan;
use super::state;
use super::{Example, Options, StepReport};
use crate::error::pool;
use crate::memory::Cpu;
use crate::model::{Activations, Gradient, Model, Network, Row, row_gradient};
use crate::ops::adamw::{AdamW, Update};
use crate::{Error, Result, math};
use rayon::prelude::*;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Elements that one task of the optimizer handles; also the parts of the gradient norm's fixed sum.
const CHUNK: usize = 16_384;

/// A training run in progress.
pub struct Trainer<'a> {
    model: Model,
    examples: &'a [Example],
    options: Options,
    plan: Plan,
    network: Network,
    pool: rayon::ThreadPool,
    lanes: Vec<Gradient>,
    spare: Mutex<Vec<(Row, Activations)>>,
    /// AdamW's moments, laid out as the weights are.
    first: Vec<f32>,
    second: Vec<f32>,
    /// For each chunk of the weights, whether it decays.
    pieces: Vec<(usize, usize, bool)>,
    progress: state::Progress,
}

impl<'a> Trainer<'a> {
    /// Plans the run: nothing is computed yet.
    ///
    /// # Errors
    /// [`Error::Example`], naming its index, if one is longer than a row or than the model's positions, has nothing to
    /// predict or a token that the model lacks; [`Error::Options`] if there are no examples.
    pub fn new(model: Model, examples: &'a [Example], options: &Options) -> Result<Self> {
        let plan = Plan::new(examples, options, &model.config)?;
        let longest = examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
        let len = model.weights.len();
        let pieces = model.layout.tensors().iter().flat_map(|tensor| {
            let range = tensor.range();
            let decays = tensor.shape.len() > 1;
            range.clone().step_by(CHUNK).map(move |at| (at, (at + CHUNK).min(range.end), decays))
        });
        Ok(Self {
            network: Network::new(&model.config, Cpu::new(), longest)?,
            pool: pool(options.threads)?,
            lanes: (0..options.lanes).map(|_| Gradient::default()).collect(),
            spare: Mutex::default(),
            first: vec![0.0; len],
            second: vec![0.0; len],
            pieces: pieces.collect(),
            progress: state::Progress::new(state::fingerprint(&model, examples, options)),
            model,
            examples,
            options: options.clone(),
            plan,
        })
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.plan.steps
    }

    /// Steps done so far.
    pub fn done(&self) -> usize {
        self.progress.step
    }

    /// The model as trained so far.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The trained model.
    pub fn finish(self) -> Model {
        self.model
    }

    /// Writes what the run needs to go on, in one file in `dir`, in one rename: a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// An I/O error naming the path.
    pub fn checkpoint(&self, dir: &Path) -> Result<()> {
        state::write(dir, &self.progress, [&self.model.weights, &self.first, &self.second])
    }

    /// Goes on from a checkpoint in `dir`, if there is one: the bytes are then those of an uninterrupted run. Gives
    /// whether there was one.
    ///
    /// # Errors
    /// An I/O error; [`Error::Malformed`] if the checkpoint is damaged or of another run.
    pub fn resume(&mut self, dir: &Path) -> Result<bool> {
        let arrays = [&mut self.model.weights, &mut self.first, &mut self.second];
        let found = state::read(dir, &self.progress.fingerprint, arrays)?;
        let resumed = found.is_some();
        self.progress = found.unwrap_or_else(|| self.progress.clone());
        Ok(resumed)
    }

    /// Does one step; none if the run is over.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or the gradient is not finite; the weights are then as before the step.
    pub fn step(&mut self) -> Result<Option<StepReport>> {
        let step = self.progress.step;
        if step >= self.plan.steps {
            return Ok(None);
        }
        let rows: Vec<&[u32]> = self.plan.rows(step).collect();
        let examples = rows.iter().flat_map(|row| row.iter()).map(|index| &self.examples[*index as usize]);
        let (mut read, mut targets) = (0u64, 0u64);
        for example in examples {
            read += example.tokens.len() as u64 - 1;
            targets += (example.tokens.len() - example.prompt.max(1)) as u64;
        }
        let loss = self.gradient(step, 1.0 / targets as f32) / targets as f64;
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
        Ok(Some(StepReport {
            step: step + 1,
            steps: self.plan.steps,
            loss: loss as f32,
            grad_norm,
            learning_rate,
            tokens: self.progress.tokens,
            target_tokens: self.progress.target_tokens,
        }))
    }

    /// Leaves the step's gradient in the first lane; gives the sum of the losses.
    fn gradient(&mut self, step: usize, scale: f32) -> f64 {
        let Self { model, examples, plan, network, pool, lanes, spare, options, .. } = self;
        let (rows, spare): (Vec<&[u32]>, _) = (plan.rows(step).collect(), &*spare);
        let used = options.lanes.min(rows.len());
        pool.install(|| {
            network.pack(model.weights(), true);
            let network = &*network;
            lanes[..used].par_iter_mut().enumerate().with_max_len(1).for_each(|(lane, gradient)| {
                gradient.clear(model.weights.len());
                let taken = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let (mut row, mut kept) = taken.unwrap_or_default();
                for members in rows.iter().skip(lane).step_by(options.lanes) {
                    row.clear();
                    for member in *members {
                        let example = &examples[*member as usize];
                        row.push(&example.tokens, example.prompt);
                    }
                    row_gradient(network, model.weights(), &row, scale, &mut kept, gradient);
                }
                spare.lock().unwrap_or_else(PoisonError::into_inner).push((row, kept));
            });
            let (sum, others) = lanes.split_at_mut(1);
            let others = &others[..used - 1];
            sum[0].values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, sum)| {
                for other in others {
                    for (sum, value) in sum.iter_mut().zip(&other.values[chunk * CHUNK..]) {
                        *sum += value;
                    }
                }
            });
            others.iter().fold(sum[0].loss, |loss, other| loss + other.loss)
        })
    }

    /// The gradient's global norm: float64 sums of fixed chunks, added in order.
    fn norm(&self) -> f32 {
        let squares = |chunk: &[f32]| chunk.iter().fold(0.0f64, |sum, g| sum + f64::from(*g) * f64::from(*g));
        let parts: Vec<f64> = self.pool.install(|| self.lanes[0].values.par_chunks(CHUNK).map(squares).collect());
        parts.iter().sum::<f64>().sqrt() as f32
    }

    /// Linear up over the warm-up, then half a cosine down to `final_lr` at the last step.
    fn learning_rate(&self, step: usize) -> f32 {
        let Options { learning_rate, warmup, final_lr, .. } = self.options;
        let steps = self.plan.steps as f64;
        let rising = (f64::from(warmup) * steps).ceil();
        let step = step as f64 + 1.0;
        if step <= rising {
            return (f64::from(learning_rate) * step / rising) as f32;
        }
        let part = (step - rising) / (steps - rising).max(1.0);
        let cosine = 0.5 * (1.0 + math::sin_cos(part * std::f64::consts::PI).1);
        let floor = f64::from(final_lr);
        (f64::from(learning_rate) * (floor + (1.0 - floor) * cosine)) as f32
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
        let (cpu, gradient) = (self.network.cpu, &self.lanes[0].values);
        let (mut w, mut m, mut v) = (&mut self.model.weights[..], &mut self.first[..], &mut self.second[..]);
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
