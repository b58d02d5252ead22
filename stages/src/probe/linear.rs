//! A ridge classifier in float64, the same on every machine.

use std::collections::BTreeMap;

use tracetune_engine::stage::StageError;
use tracetune_engine::statistics::splitmix64;

/// The fold of each row: all rows of a problem are in one.
pub(super) fn folds(problems: &[&str], folds: usize, seed: u64) -> Result<Vec<usize>, StageError> {
    let mut order: BTreeMap<(u64, &str), usize> = BTreeMap::new();
    for problem in problems {
        let hash = blake3::hash(problem.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        order.insert((splitmix64(seed ^ u64::from_le_bytes([a, b, c, d, e, f, g, h])), *problem), 0);
    }
    if order.len() < folds {
        return Err(StageError::input(format!("{} problems are too few for {folds} folds", order.len())));
    }
    let numbers: BTreeMap<&str, usize> =
        order.keys().enumerate().map(|(nth, (_, name))| (*name, nth % folds)).collect();
    Ok(problems.iter().map(|problem| numbers[problem]).collect())
}

/// A guess for each row by a classifier that has seen the other folds only. `states`: n × C; labels below `classes`.
pub(super) fn cross_validated(
    states: &[Vec<f32>],
    labels: &[usize],
    classes: usize,
    folds: &[usize],
    ridge: f64,
) -> Vec<usize> {
    let mut guesses = vec![0; states.len()];
    for fold in 0..=folds.iter().copied().max().unwrap_or_default() {
        let seen: Vec<usize> = (0..states.len()).filter(|&row| folds[row] != fold).collect();
        if seen.is_empty() {
            continue;
        }
        let classifier = Classifier::fit(states, labels, classes, &seen, ridge);
        for row in (0..states.len()).filter(|&row| folds[row] == fold) {
            guesses[row] = classifier.guess(&states[row]);
        }
    }
    guesses
}

/// One linear score a class: (XᵀX + λnI)⁻¹XᵀY on standardised channels, Y centred one-hot labels.
struct Classifier {
    means: Vec<f64>,
    scales: Vec<f64>,
    /// Classes × channels.
    weights: Vec<Vec<f64>>,
    shares: Vec<f64>,
}

impl Classifier {
    fn fit(states: &[Vec<f32>], labels: &[usize], classes: usize, seen: &[usize], ridge: f64) -> Self {
        let (n, channels) = (seen.len() as f64, states[seen[0]].len());
        let mean = |channel: usize, of: &dyn Fn(f64) -> f64| {
            seen.iter().map(|&row| of(f64::from(states[row][channel]))).sum::<f64>() / n
        };
        let means: Vec<f64> = (0..channels).map(|channel| mean(channel, &|value| value)).collect();
        let scales: Vec<f64> = (0..channels)
            .map(|channel| mean(channel, &|value| (value - means[channel]).powi(2)).sqrt())
            .map(|deviation| if deviation > 1e-12 { 1.0 / deviation } else { 0.0 })
            .collect();
        let mut classifier = Self { means, scales, weights: Vec::new(), shares: vec![0.0; classes] };
        for &row in seen {
            classifier.shares[labels[row]] += 1.0 / n;
        }
        let rows: Vec<Vec<f64>> = seen.iter().map(|&row| classifier.standardised(&states[row])).collect();
        let mut gram = vec![0.0; channels * channels];
        let mut targets = vec![vec![0.0; channels]; classes];
        for (row, &place) in rows.iter().zip(seen) {
            for (i, a) in row.iter().enumerate() {
                for (sum, b) in gram[i * channels..=i * channels + i].iter_mut().zip(row) {
                    *sum += a * b;
                }
            }
            for (class, target) in targets.iter_mut().enumerate() {
                let label = f64::from(labels[place] == class) - classifier.shares[class];
                target.iter_mut().zip(row).for_each(|(sum, value)| *sum += label * value);
            }
        }
        for channel in 0..channels {
            gram[channel * channels + channel] += ridge * n;
        }
        cholesky(&mut gram, channels);
        classifier.weights = targets.into_iter().map(|target| solved(&gram, target)).collect();
        classifier
    }

    fn standardised(&self, state: &[f32]) -> Vec<f64> {
        let each = state.iter().zip(&self.means).zip(&self.scales);
        each.map(|((value, mean), scale)| (f64::from(*value) - mean) * scale).collect()
    }

    /// The class with the highest score; of equals the first.
    fn guess(&self, state: &[f32]) -> usize {
        let state = self.standardised(state);
        let score = |class: usize| {
            self.shares[class]
                + self.weights[class].iter().zip(&state).map(|(weight, value)| weight * value).sum::<f64>()
        };
        let scores: Vec<f64> = (0..self.weights.len()).map(score).collect();
        let best = |best: usize, class: usize| if scores[class] > scores[best] { class } else { best };
        (0..scores.len()).fold(0, best)
    }
}

/// The lower triangle L of LLᵀ = A (n × n, positive definite, lower triangle given), in place.
fn cholesky(a: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..=i {
            let (row, column) = (&a[i * n..i * n + j], &a[j * n..j * n + j]);
            let rest = a[i * n + j] - row.iter().zip(column).map(|(x, y)| x * y).sum::<f64>();
            a[i * n + j] = if i == j { rest.sqrt() } else { rest / a[j * n + j] };
        }
    }
}

/// x of LLᵀx = b.
fn solved(l: &[f64], mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let rest = b[i] - l[i * n..i * n + i].iter().zip(&b).map(|(l, x)| l * x).sum::<f64>();
        b[i] = rest / l[i * n + i];
    }
    for i in (0..n).rev() {
        let rest = b[i] - (i + 1..n).map(|j| l[j * n + i] * b[j]).sum::<f64>();
        b[i] = rest / l[i * n + i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(state: &mut u64) -> f32 {
        *state = splitmix64(*state);
        (*state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }

    /// States of 12 channels in which, if `told`, a label shifts three of them.
    fn example(told: bool) -> (Vec<Vec<f32>>, Vec<usize>, Vec<String>) {
        let mut state = 3;
        let labels: Vec<usize> = (0..300).map(|row| (splitmix64(row) % 3) as usize).collect();
        let states = labels
            .iter()
            .map(|&label| {
                (0..12).map(|channel| noise(&mut state) + if told && channel == label { 0.8 } else { 0.0 }).collect()
            })
            .collect();
        (states, labels, (0..300).map(|row| format!("p{}", row / 2)).collect())
    }

    fn accuracy(told: bool) -> f64 {
        let (states, labels, problems) = example(told);
        let problems: Vec<&str> = problems.iter().map(String::as_str).collect();
        let folds = folds(&problems, 5, 1).unwrap();
        let guesses = cross_validated(&states, &labels, 3, &folds, 0.1);
        guesses.iter().zip(&labels).filter(|(guess, label)| guess == label).count() as f64 / 300.0
    }

    #[test]
    fn a_probe_finds_what_is_there_and_nothing_else() {
        assert!(accuracy(true) > 0.9, "{}", accuracy(true));
        assert!((accuracy(false) - 1.0 / 3.0).abs() < 0.1, "{}", accuracy(false));
    }

    #[test]
    fn a_problem_is_in_one_fold() {
        let (.., problems) = example(true);
        let problems: Vec<&str> = problems.iter().map(String::as_str).collect();
        let folds = folds(&problems, 5, 1).unwrap();
        assert!(folds.chunks(2).all(|pair| pair[0] == pair[1]));
        let sizes: Vec<usize> = (0..5).map(|fold| folds.iter().filter(|&&it| it == fold).count()).collect();
        assert_eq!(sizes, [60; 5]);
        assert!(super::folds(&["a", "b"], 3, 1).is_err());
    }

    #[test]
    fn the_solution_solves() {
        let mut a = vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, 1.0, 3.0, 6.0];
        let full = [[4.0, 2.0, 1.0], [2.0, 5.0, 3.0], [1.0, 3.0, 6.0]];
        cholesky(&mut a, 3);
        let x = solved(&a, vec![1.0, -2.0, 3.0]);
        for (row, expected) in full.iter().zip([1.0, -2.0, 3.0]) {
            let found: f64 = row.iter().zip(&x).map(|(a, x)| a * x).sum();
            assert!((found - expected).abs() < 1e-12);
        }
    }
}
