//! The network backward over one row of documents: the loss at the places that count, and its gradient.

use super::forward::{Activations, LOGIT_ROWS, Row, row_forward, sized};
use super::{Layout, Network};
use crate::ops::attention::Attention;
use crate::ops::classifier::Classifier;
use crate::ops::embedding::Embedding;
use crate::ops::matmul::MatMul;
use crate::ops::rmsnorm::RmsNorm;
use crate::ops::rope::Rope;
use crate::ops::swiglu::SwiGlu;

/// Gradients of activations; reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    stream: Vec<f32>,
    chosen: Vec<f32>,
    normed: Vec<f32>,
    gated: Vec<f32>,
    gate_up: Vec<f32>,
    attended: Vec<f32>,
    qkv: Vec<f32>,
}

/// A sum of gradients, laid out as the weights are, and of losses.
#[derive(Debug, Default)]
pub(crate) struct Gradient {
    pub(crate) values: Vec<f32>,
    /// Σ loss in nats over the targets.
    pub(crate) loss: f64,
}

impl Gradient {
    pub(crate) fn clear(&mut self, len: usize) {
        self.values.clear();
        self.values.resize(len, 0.0);
        self.loss = 0.0;
    }
}

/// Adds one row's gradient, each target weighing `scale`, into `gradient`.
pub(crate) fn row_gradient(
    network: &Network,
    layout: &Layout,
    weights: &[f32],
    row: &Row,
    scale: f32,
    kept: &mut Activations,
    gradient: &mut Gradient,
) {
    row_forward(network, layout, weights, row, kept);
    let Network { cpu, channels, vocabulary, .. } = *network;
    let count = row.places.len();
    let Activations { layers, chosen, rstd, normed, logits, losses, attention, panels, backward, .. } = kept;
    let Buffers { stream, chosen: dchosen, normed: dnormed, gated, gate_up, attended, qkv } = backward;

    // The head, a block of rows at a time: the logits become their own gradient.
    let dnormed_at = sized(dnormed, count * channels);
    let normed = &normed[..count * channels];
    losses.resize(LOGIT_ROWS, 0.0);
    for first in (0..count).step_by(LOGIT_ROWS) {
        let rows = LOGIT_ROWS.min(count - first);
        let part = first * channels..(first + rows) * channels;
        let logits = sized(logits, rows * vocabulary);
        cpu.linear(logits, &normed[part.clone()], &network.head, rows, false);
        cpu.classifier(logits, losses, &row.targets[first..first + rows], vocabulary, scale);
        gradient.loss = losses[..rows].iter().fold(gradient.loss, |sum, loss| sum + loss);
        cpu.linear_backward_input(&mut dnormed_at[part.clone()], logits, &network.head, rows);
        let dhead = &mut gradient.values[layout.head.clone()];
        cpu.linear_backward_weight(dhead, logits, &normed[part], vocabulary, channels, rows, panels);
    }
    let dchosen = sized(dchosen, count * channels);
    dchosen.fill(0.0);
    let dnorm = &mut gradient.values[layout.norm.clone()];
    let norm = &weights[layout.norm.clone()];
    cpu.rmsnorm_backward(dchosen, dnorm, dnormed_at, &chosen[..count * channels], norm, &rstd[..count]);
    let tokens = row.tokens.len();
    let dx = sized(stream, tokens * channels);
    dx.fill(0.0);
    cpu.embedding_backward(dx, dchosen, &row.places, channels);

    for ((kept, ranges), layer) in layers.iter().zip(&layout.layers).zip(&network.layers).rev() {
        let Network { heads, width, .. } = *network;
        let size = tokens * channels;
        let grad = &mut gradient.values;

        // The feed-forward half: x += down(swiglu(gate_up(norm(x)))).
        let dgated = sized(gated, tokens * width);
        let dgate_up = sized(gate_up, tokens * 2 * width);
        let dnormed = sized(dnormed, size);
        let kept_gated = &kept.gated[..tokens * width];
        cpu.linear_backward_input(dgated, dx, &layer.down, tokens);
        cpu.linear_backward_weight(&mut grad[ranges.down.clone()], dx, kept_gated, channels, width, tokens, panels);
        cpu.swiglu_backward(dgate_up, dgated, &kept.gate_up[..tokens * 2 * width], width);
        cpu.linear_backward_input(dnormed, dgate_up, &layer.gate_up, tokens);
        let dw = &mut grad[ranges.gate_up.clone()];
        cpu.linear_backward_weight(dw, dgate_up, &kept.mlp_in[..size], 2 * width, channels, tokens, panels);
        let (norm, dw) = (&weights[ranges.mlp_norm.clone()], &mut grad[ranges.mlp_norm.clone()]);
        cpu.rmsnorm_backward(dx, dw, dnormed, &kept.middle[..size], norm, &kept.mlp_rstd[..tokens]);

        // The attention half: x += output(attention(rope(qkv(norm(x))))).
        let dattended = sized(attended, tokens * heads.width());
        let dqkv = sized(qkv, tokens * heads.stride());
        let kept_attended = &kept.attended[..tokens * heads.width()];
        cpu.linear_backward_input(dattended, dx, &layer.output, tokens);
        let dw = &mut grad[ranges.output.clone()];
        cpu.linear_backward_weight(dw, dx, kept_attended, channels, heads.width(), tokens, panels);
        let (stats, kept_qkv) = (&kept.stats[..tokens * heads.query * 2], &kept.qkv[..tokens * heads.stride()]);
        cpu.attention_backward(dqkv, dattended, kept_attended, stats, kept_qkv, &row.documents, heads, attention);
        let turned = heads.query + heads.key_value;
        cpu.rope_backward(dqkv, &row.positions, &network.rotations, turned, heads.stride());
        cpu.linear_backward_input(dnormed, dqkv, &layer.qkv, tokens);
        let dw = &mut grad[ranges.qkv.clone()];
        cpu.linear_backward_weight(dw, dqkv, &kept.attention_in[..size], heads.stride(), channels, tokens, panels);
        let (norm, dw) = (&weights[ranges.attention_norm.clone()], &mut grad[ranges.attention_norm.clone()]);
        cpu.rmsnorm_backward(dx, dw, dnormed, &kept.input[..size], norm, &kept.attention_rstd[..tokens]);
    }
    cpu.embedding_backward(&mut gradient.values[layout.embedding.clone()], dx, &row.tokens, channels);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Cpu;
    use crate::model::{Config, Model, Tokenizer};
    use crate::simd::Level;
    use crate::testing::{assert_same_bits, noise};

    fn model(tied: bool) -> Model {
        let tokenizer = Tokenizer::train_bpe(["a"].into_iter(), 258).expect("trains");
        let config =
            Config { num_key_value_heads: Some(1), tie_word_embeddings: tied, ..Config::llama(258, 12, 20, 2, 2) };
        let mut model = Model::init(config, tokenizer, 7).expect("a valid model");
        // Fresh embeddings are so short that the first norm bends within a finite difference's step.
        let embedding = model.layout.embedding.clone();
        model.weights[embedding].iter_mut().for_each(|weight| *weight *= 25.0);
        model
    }

    fn row() -> Row {
        let mut row = Row::default();
        row.push(&[5, 9, 200, 9, 31, 8], 2);
        row.push(&[7, 7, 90], 0);
        row.push(&(2..160).collect::<Vec<u32>>(), 3);
        row
    }

    fn gradient(model: &Model, weights: &[f32], row: &Row, level: Level) -> Gradient {
        let mut network = Network::new(&model.config, Cpu::with_level(level), 160);
        network.pack(&model.layout, weights, true);
        let mut gradient = Gradient::default();
        gradient.clear(weights.len());
        let scale = 1.0 / row.targets.len() as f32;
        row_gradient(&network, &model.layout, weights, row, scale, &mut Activations::default(), &mut gradient);
        gradient.loss /= row.targets.len() as f64;
        gradient
    }

    #[test]
    fn the_whole_gradient_agrees_with_finite_differences_tensor_by_tensor() {
        for tied in [true, false] {
            let (model, row) = (model(tied), row());
            let analytic = gradient(&model, &model.weights, &row, Level::detect());
            for (nth, tensor) in model.layout.tensors().iter().enumerate() {
                // Along one direction in each tensor: the loss is in float32, so single weights would drown in rounding.
                let direction = noise(tensor.range().len(), nth as u64, 1.0);
                let slope: f64 = analytic.values[tensor.range()]
                    .iter()
                    .zip(&direction)
                    .map(|(gradient, direction)| f64::from(*gradient) * f64::from(*direction))
                    .sum();
                let step = 2e-3;
                let loss = |sign: f32| {
                    let mut weights = model.weights.clone();
                    for (weight, direction) in weights[tensor.range()].iter_mut().zip(&direction) {
                        *weight += sign * step * direction;
                    }
                    gradient(&model, &weights, &row, Level::detect()).loss
                };
                let numeric = (loss(1.0) - loss(-1.0)) / (2.0 * f64::from(step));
                let error = (numeric - slope).abs();
                assert!(error < 0.02 * slope.abs().max(0.05), "{}: {slope} instead of {numeric}", tensor.name);
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_gradient() {
        let (model, row) = (model(true), row());
        let scalar = gradient(&model, &model.weights, &row, Level::SCALAR);
        for level in Level::available() {
            let found = gradient(&model, &model.weights, &row, level);
            assert_eq!(found.loss.to_bits(), scalar.loss.to_bits());
            assert_same_bits(&found.values, &scalar.values);
        }
    }
}
