//! The network backward over one row of documents: the loss at the places that count, and its gradient.

use super::activations::{Activations, Keep, sized};
use super::forward::{LOGIT_ROWS, Row, documents_forward, row_forward};
use super::{Network, Weights};
use crate::crew;
use crate::ops::attention::Attention;
use crate::ops::classifier::{Classifier, scale_by};
use crate::ops::embedding::Embedding;
use crate::ops::gelu::Gelu;
use crate::ops::rope::Rope;
use crate::ops::swiglu::SwiGlu;

/// Gradients of activations; reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    stream: Vec<f32>,
    chosen: Vec<f32>,
    normed: Vec<f32>,
    gated: Vec<f32>,
    up: Vec<f32>,
    attended: Vec<f32>,
    qkv: Vec<f32>,
    raw: Vec<f32>,
}

/// A sum of gradients, laid out as what is trained is (the weights, or the adapters), and of losses.
#[derive(Debug, Default)]
pub(crate) struct Gradient {
    pub(crate) values: Vec<f32>,
    /// Σ weight · loss in nats over the targets.
    pub(crate) loss: f64,
}

impl Gradient {
    pub(crate) fn clear(&mut self, len: usize) {
        const PIECE: usize = 1 << 20;
        if self.values.len() != len {
            self.values = vec![0.0; len];
        }
        crew::each(self.values.chunks_mut(PIECE), |piece| piece.fill(0.0));
        self.loss = 0.0;
    }
}

/// Adds one row's gradient, each target counting its weight times `scale`, into `gradient`.
pub(crate) fn row_gradient(
    network: &Network,
    weights: Weights,
    row: &Row,
    scale: f32,
    kept: &mut Activations,
    gradient: &mut Gradient,
) {
    row_forward(network, weights, row, kept);
    let Network { cpu, heads, channels, width, vocabulary, .. } = *network;
    let (layout, count, tokens) = (weights.layout, row.places.len(), row.tokens.len());
    let Activations { keep: Keep { recompute, rounded }, inputs, halves, layers, output, chosen, .. } = kept;
    let Activations { chosen_stats, normed, logits, losses, attention, low, backward, .. } = kept;
    let Buffers { stream, chosen: dchosen, normed: dnormed, gated, up, attended, qkv, raw } = backward;
    let grad = &mut gradient.values[..];

    // The head, a block of rows at a time: the logits become their own gradient.
    let dnormed_at = sized(dnormed, count * channels);
    let normed = &normed[..count * channels];
    losses.resize(LOGIT_ROWS, 0.0);
    for first in (0..count).step_by(LOGIT_ROWS) {
        let rows = LOGIT_ROWS.min(count - first);
        let part = first * channels..(first + rows) * channels;
        let logits = sized(logits, rows * vocabulary);
        network.linear(logits, &normed[part.clone()], (&network.head, &layout.head, weights), rows, false);
        cpu.classifier(logits, losses, &row.targets[first..first + rows], vocabulary, scale);
        let weighted = logits.chunks_exact_mut(vocabulary).zip(&row.weights[first..first + rows]);
        for ((logits, weight), loss) in weighted.zip(&*losses) {
            gradient.loss += f64::from(*weight) * loss;
            if *weight != 1.0 {
                scale_by(cpu.level, logits, *weight);
            }
        }
        let (dx, x) = (&mut dnormed_at[part.clone()], &normed[part]);
        network.linear_backward(dx, grad, (logits, x), (&network.head, &layout.head, weights), rows, low);
    }
    let dchosen = sized(dchosen, count * channels);
    dchosen.fill(0.0);
    let chosen = (&chosen[..count * channels], &chosen_stats[..]);
    network.norm_backward(dchosen, grad, dnormed_at, chosen, weights, &layout.norm);
    let size = tokens * channels;
    let dx = sized(stream, size);
    dx.fill(0.0);
    cpu.embedding_backward(dx, dchosen, &row.places, channels);

    for (index, (parts, layer)) in layout.layers.iter().zip(&network.layers).enumerate().rev() {
        if *recompute && index + 1 < network.layers.len() {
            let x = sized(output, size);
            x.copy_from_slice(&inputs[index * size..][..size]);
            documents_forward(network, weights, index, x, (&row.positions, &row.documents), &mut layers[0], attention);
        }
        match halves.get(index) {
            Some(halves) => halves.restore(cpu.level, &mut layers[0]),
            None if *rounded => layers[0].round(cpu.level),
            None => {}
        }
        let kept = &layers[if *recompute || *rounded { 0 } else { index }];
        let dnormed = sized(dnormed, size);

        // The feed-forward half: x += down(gate(up(norm(x)))).
        let dgated = sized(gated, tokens * width);
        let kept_gated = &kept.gated[..tokens * width];
        network.linear_backward(dgated, grad, (dx, kept_gated), (&layer.down, &parts.down, weights), tokens, low);
        let len = tokens * network.up_width();
        let (dup, kept_up) = (sized(up, len), &kept.up[..len]);
        if network.gated {
            cpu.swiglu_backward(dup, dgated, kept_up, width);
        } else {
            cpu.gelu_backward(dup, dgated, kept_up);
        }
        let kept_in = &kept.mlp_in[..size];
        network.linear_backward(dnormed, grad, (dup, kept_in), (&layer.up, &parts.up, weights), tokens, low);
        let middle = (&kept.middle[..size], &kept.mlp_stats[..]);
        network.norm_backward(dx, grad, dnormed, middle, weights, &parts.mlp_norm);

        // The attention half: x += output(attention(rope(norm(qkv(norm(x)))))).
        let dattended = sized(attended, tokens * heads.width());
        let kept_attended = &kept.attended[..tokens * heads.width()];
        network.linear_backward(
            dattended,
            grad,
            (dx, kept_attended),
            (&layer.output, &parts.output, weights),
            tokens,
            low,
        );
        let len = tokens * heads.stride();
        let (mut dqkv, kept_qkv, stats) = (sized(qkv, len), &kept.qkv[..len], &kept.stats[..tokens * heads.query * 2]);
        let (documents, window) = (&row.documents[..], layer.window);
        cpu.attention_backward(dqkv, dattended, kept_attended, stats, kept_qkv, documents, heads, window, attention);
        let turned = heads.query + heads.key_value;
        if let Some(rotations) = &network.rotations {
            cpu.rope_backward(dqkv, &row.positions, rotations, turned, heads.stride());
        }
        if let Some(norms) = &parts.query_key_norm {
            let draw = sized(raw, len);
            let rows = draw.chunks_exact_mut(heads.stride()).zip(dqkv.chunks_exact(heads.stride()));
            let kept = kept.raw.chunks_exact(heads.stride()).zip(kept.head_stats.chunks_exact(turned));
            for ((dx, dy), (x, stats)) in rows.zip(kept) {
                dx.copy_from_slice(dy);
                dx[..turned * heads.size].fill(0.0);
                for (norm, part) in norms.iter().zip([0..heads.query, heads.query..turned]) {
                    let at = part.start * heads.size..part.end * heads.size;
                    let x = (&x[at.clone()], &stats[part]);
                    network.norm_backward(&mut dx[at.clone()], grad, &dy[at], x, weights, norm);
                }
            }
            dqkv = draw;
        }
        let kept_in = &kept.attention_in[..size];
        network.linear_backward(dnormed, grad, (dqkv, kept_in), (&layer.qkv, &parts.qkv, weights), tokens, low);
        let input = (&kept.input[..size], &kept.attention_stats[..]);
        network.norm_backward(dx, grad, dnormed, input, weights, &parts.attention_norm);
    }
    if network.adapters.is_some() {
        return;
    }
    cpu.embedding_backward(&mut grad[layout.embedding.clone()], dx, &row.tokens, channels);
    if let Some(table) = &layout.positions {
        cpu.embedding_backward(&mut grad[table.clone()], dx, &row.positions, channels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Cpu;
    use crate::model::family::Family;
    use crate::model::layout::Start;
    use crate::model::{Adapters, Config, Lora, Model, Tokenizer};
    use crate::simd::Level;
    use crate::testing::{assert_same_bits, noise};

    /// A model of each family, the first two differing in their heads.
    fn models() -> Vec<Model> {
        let families = ["llama", "llama", "qwen2", "qwen3", "starcoder2", "gpt2"];
        let model = |(nth, family): (usize, &str)| {
            let tokenizer = Tokenizer::train_bpe(["a"].into_iter(), 258).expect("trains");
            let plain = Config::llama(258, 12, 20, 2, 2);
            let family = Family::find(family).expect("known");
            let config = Config {
                architectures: vec![family.architecture.into()],
                model_type: family.model_type.into(),
                hidden_act: family.activations[0].into(),
                use_bias: family.layer_norm.then_some(true),
                sliding_window: Some(20),
                num_key_value_heads: Some(if family.names.positions.is_some() { 2 } else { 1 }),
                tie_word_embeddings: nth != 1,
                ..plain
            };
            let mut model = Model::init(config, tokenizer, 7).expect("a valid model");
            for tensor in model.layout.tensors() {
                for (i, weight) in model.weights[tensor.range()].iter_mut().enumerate() {
                    match tensor.start {
                        // Fresh embeddings are so short that the first norm bends within a finite difference's step.
                        Start::Normal(0.02) => *weight *= 25.0,
                        Start::Zeros => *weight = (i % 5) as f32 * 0.1 - 0.2,
                        _ => {}
                    }
                }
            }
            model
        };
        families.into_iter().enumerate().map(model).collect()
    }

    fn row() -> Row {
        let mut row = Row::default();
        row.push(&[5, 9, 200, 9, 31, 8], 2, 1.0);
        row.push(&[7, 7, 90], 0, 2.5);
        row.push(&(2..160).collect::<Vec<u32>>(), 3, 1.0);
        row
    }

    fn gradient(model: &Model, weights: &[f32], row: &Row, level: Level) -> Gradient {
        let network = Network::new(&model.config, Cpu::with_level(level), 160).expect("a valid model");
        let weights = Weights { layout: &model.layout, values: weights };
        let mut gradient = Gradient::default();
        gradient.clear(weights.values.len());
        let scale = 1.0 / row.targets.len() as f32;
        row_gradient(&network, weights, row, scale, &mut Activations::default(), &mut gradient);
        gradient.loss /= row.targets.len() as f64;
        gradient
    }

    #[test]
    fn the_whole_gradient_agrees_with_finite_differences_tensor_by_tensor() {
        for model in models() {
            let row = row();
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
                let (family, name) = (&model.config.model_type, &tensor.name);
                assert!(error < 0.02 * slope.abs().max(0.05), "{family}, {name}: {slope} instead of {numeric}");
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_gradient() {
        for model in models() {
            let row = row();
            let scalar = gradient(&model, &model.weights, &row, Level::SCALAR);
            for level in Level::available() {
                let found = gradient(&model, &model.weights, &row, level);
                assert_eq!(found.loss.to_bits(), scalar.loss.to_bits());
                assert_same_bits(&found.values, &scalar.values);
            }
        }
    }

    #[test]
    fn the_gradient_of_adapters_agrees_with_finite_differences_factor_by_factor() {
        for model in models() {
            let row = row();
            let lora = Lora { rank: 3, alpha: 4.0, targets: Vec::new() };
            let start = noise(Adapters::new(&model.layout, &lora).expect("adapters").len(), 3, 0.1);
            let gradient = |values: Vec<f32>| {
                let mut adapters = Adapters::new(&model.layout, &lora).expect("adapters");
                let mut network = Network::new(&model.config, Cpu::new(), 160).expect("a valid model");
                let mut merged = model.weights.clone();
                adapters.pack(network.cpu, &values);
                adapters.merge(network.cpu, &model.weights, &values, &mut merged);
                network.adapters = Some((adapters, values));
                let weights = Weights { values: &merged, ..model.weights() };
                let mut gradient = Gradient::default();
                gradient.clear(start.len());
                let scale = 1.0 / row.targets.len() as f32;
                row_gradient(&network, weights, &row, scale, &mut Activations::default(), &mut gradient);
                gradient.loss /= row.targets.len() as f64;
                gradient
            };
            let analytic = gradient(start.clone());
            for (nth, factor) in Adapters::new(&model.layout, &lora).expect("adapters").factors().enumerate() {
                let direction = noise(factor.len(), nth as u64, 1.0);
                let slope: f64 =
                    analytic.values[factor.clone()].iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
                let step = 2e-3;
                let loss = |sign: f32| {
                    let mut values = start.clone();
                    values[factor.clone()].iter_mut().zip(&direction).for_each(|(v, d)| *v += sign * step * d);
                    gradient(values).loss
                };
                let numeric = (loss(1.0) - loss(-1.0)) / (2.0 * f64::from(step));
                let error = (numeric - slope).abs();
                let family = &model.config.model_type;
                assert!(error < 0.02 * slope.abs().max(0.05), "{family}, {factor:?}: {slope} instead of {numeric}");
            }
        }
    }
}
