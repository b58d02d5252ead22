//! Choosing a token from a row of logits, in float32 with our own exponential.

use super::{Draw, Sampling};
use crate::math;
use crate::ops::attention::softmax;
use crate::ops::classifier::exponentials;
use crate::random;
use crate::simd::Level;

/// Space that choosing reuses.
#[derive(Default)]
pub(crate) struct Sampler {
    weights: Vec<f32>,
    candidates: Vec<u32>,
    /// The logits with repetitions made less likely.
    penalised: Vec<f32>,
}

impl Sampler {
    /// The next token of a draw, and its ln p by the bare logits at temperature 1. Ties go to the lower id. `seen` are the
    /// tokens of the prompt and those drawn so far.
    pub(crate) fn choose(
        &mut self,
        level: Level,
        logits: &[f32],
        sampling: &Sampling,
        draw: Draw,
        seen: [&[u32]; 2],
    ) -> (u32, f32) {
        let Self { weights, candidates, penalised } = self;
        let bare = logits;
        let logits = if sampling.repetition_penalty == 1.0 {
            logits
        } else {
            penalised.clear();
            penalised.extend_from_slice(logits);
            for token in seen.into_iter().flatten() {
                let (logit, penalty) = (bare[*token as usize], sampling.repetition_penalty);
                penalised[*token as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
            }
            penalised
        };
        weights.clear();
        weights.extend_from_slice(logits);
        let (mut max, mut sum) = exponentials(level, weights);
        let token = if draw.greedy || sampling.temperature == 0.0 {
            logits.iter().position(|logit| *logit == max).unwrap_or(0) as u32
        } else {
            let mut total = sum;
            if sampling.temperature != 1.0 {
                weights.copy_from_slice(logits);
                total = softmax(level, weights, 1.0 / sampling.temperature).1;
            }
            sample(weights, candidates, sampling, total, random::uniform(draw.seed, seen[1].len() as u64))
        };
        if sampling.repetition_penalty != 1.0 {
            weights.copy_from_slice(bare);
            (max, sum) = exponentials(level, weights);
        }
        let logprob = f64::from(bare[token as usize]) - f64::from(max) - math::ln(f64::from(sum));
        (token, logprob as f32)
    }
}

/// The inverse of the cumulative distribution at `uniform`: in the order of ids, or of weights if some are left out.
fn sample(weights: &[f32], candidates: &mut Vec<u32>, sampling: &Sampling, total: f32, uniform: f32) -> u32 {
    let top_k = if sampling.top_k == 0 { weights.len() } else { sampling.top_k.min(weights.len()) };
    if top_k == weights.len() && sampling.top_p >= 1.0 && sampling.min_p == 0.0 {
        return walk(weights.iter().copied().zip(0..), uniform * total);
    }
    // Tokens lighter than this hold less than 1 - top_p together: none of them is in the nucleus.
    let lightest = if top_k == weights.len() { (1.0 - sampling.top_p) * total / weights.len() as f32 } else { 0.0 };
    // The likeliest token's weight is 1, up to rounding of the exponential: `min_p` is a bound on weights.
    let lightest = lightest.max(sampling.min_p);
    candidates.clear();
    candidates.extend((0..weights.len() as u32).filter(|token| weights[*token as usize] >= lightest));
    let weight = |token: &u32| weights[*token as usize];
    let heavier = |a: &u32, b: &u32| weight(b).total_cmp(&weight(a)).then(a.cmp(b));
    if top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k, heavier);
        candidates.truncate(top_k);
    }
    candidates.sort_unstable_by(heavier);
    let mut mass = 0.0;
    if sampling.top_p < 1.0 {
        let whole = if top_k == weights.len() { total } else { candidates.iter().fold(0.0, |sum, c| sum + weight(c)) };
        let mut kept = 0;
        for token in candidates.iter() {
            mass += weight(token);
            kept += 1;
            if mass >= sampling.top_p * whole {
                break;
            }
        }
        candidates.truncate(kept);
    } else {
        mass = candidates.iter().fold(0.0, |sum, c| sum + weight(c));
    }
    walk(candidates.iter().map(|token| (weight(token), *token)), uniform * mass)
}

/// The first token at which the running sum passes `mark`; the last of some weight if rounding lets none.
fn walk(tokens: impl Iterator<Item = (f32, u32)>, mark: f32) -> u32 {
    let (mut sum, mut last) = (0.0, 0);
    for (weight, token) in tokens {
        sum += weight;
        if weight > 0.0 {
            last = token;
        }
        if sum > mark {
            return token;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(sampling: &Sampling, logits: &[f32]) -> Vec<f64> {
        let (mut sampler, mut counts) = (Sampler::default(), vec![0.0; logits.len()]);
        let n = 20_000;
        for seed in 0..n {
            let draw = Draw { seed, greedy: false };
            counts[sampler.choose(Level::detect(), logits, sampling, draw, [&[1], &[3, 1, 1]]).0 as usize] +=
                1.0 / n as f64;
        }
        counts
    }

    fn softmax64(logits: &[f32], temperature: f64) -> Vec<f64> {
        let p: Vec<f64> = logits.iter().map(|z| (f64::from(*z) / temperature).exp()).collect();
        let total: f64 = p.iter().sum();
        p.iter().map(|p| p / total).collect()
    }

    const LOGITS: [f32; 6] = [1.0, 3.0, 0.5, 2.5, -1.0, 2.0];

    #[test]
    fn tokens_come_as_often_as_the_temperature_says() {
        for temperature in [0.5, 1.0, 2.0] {
            let sampling = Sampling { temperature, ..Sampling::default() };
            for (found, expected) in frequencies(&sampling, &LOGITS).iter().zip(softmax64(&LOGITS, temperature.into()))
            {
                assert!((found - expected).abs() < 0.012, "{found} {expected}");
            }
        }
    }

    #[test]
    fn the_nucleus_is_the_fewest_tokens_with_enough_probability() {
        let p = softmax64(&LOGITS, 1.0);
        for (top_p, kept) in [(0.4, vec![1]), (0.7, vec![1, 3]), (0.85, vec![1, 3, 5])] {
            let mass: f64 = kept.iter().map(|i| p[*i]).sum();
            assert!(mass >= top_p, "the example is right");
            let sampling = Sampling { top_p: top_p as f32, ..Sampling::default() };
            for (token, found) in frequencies(&sampling, &LOGITS).iter().enumerate() {
                let expected = if kept.contains(&token) { p[token] / mass } else { 0.0 };
                assert!((found - expected).abs() < 0.012, "top_p {top_p}, token {token}: {found} {expected}");
            }
        }
        let both = Sampling { top_p: 0.99, top_k: 2, ..Sampling::default() };
        let found = frequencies(&both, &LOGITS);
        assert!((found[1] + found[3] - 1.0).abs() < 1e-9 && found[3] > 0.3);
    }

    #[test]
    fn tokens_below_a_part_of_the_likeliest_are_left_out() {
        let p = softmax64(&LOGITS, 0.8);
        // Relative to the likeliest: e^((2.5 - 3) / 0.8) = 0.54 and e^((2 - 3) / 0.8) = 0.29, then 0.08.
        let sampling = Sampling { min_p: 0.2, temperature: 0.8, ..Sampling::default() };
        let found = frequencies(&sampling, &LOGITS);
        let mass = p[1] + p[3] + p[5];
        for (token, found) in found.iter().enumerate() {
            let expected = if [1, 3, 5].contains(&token) { p[token] / mass } else { 0.0 };
            assert!((found - expected).abs() < 0.012, "token {token}: {found} {expected}");
        }
    }

    #[test]
    fn tokens_seen_before_are_less_likely_but_their_probability_is_the_models() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut penalised = LOGITS;
        penalised[1] = 1.5;
        penalised[3] = 1.25;
        for (found, expected) in frequencies(&sampling, &LOGITS).iter().zip(softmax64(&penalised, 1.0)) {
            assert!((found - expected).abs() < 0.012, "{found} {expected}");
        }
        let draw = Draw { seed: 1, greedy: true };
        let seen: [&[u32]; 2] = [&[1], &[3]];
        let (token, logprob) = Sampler::default().choose(Level::detect(), &LOGITS, &sampling, draw, seen);
        assert_eq!(token, 5);
        assert!((f64::from(logprob) - softmax64(&LOGITS, 1.0)[5].ln()).abs() < 1e-6);
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_says_its_probability() {
        let logits = [0.0, 2.0, 2.0];
        let draw = Draw { seed: 1, greedy: true };
        let (token, logprob) =
            Sampler::default().choose(Level::detect(), &logits, &Sampling::default(), draw, [&[], &[]]);
        assert_eq!(token, 1);
        assert!((f64::from(logprob) - softmax64(&logits, 1.0)[1].ln()).abs() < 1e-6);
    }
}
