//! Which examples share a row, which rows share a step: decided before the first step, by the seed alone.

use super::{Example, Options, Steps};
use crate::model::Config;
use crate::random;
use crate::{Error, Result};

/// Rows that are open at a time while examples are packed.
const OPEN_ROWS: usize = 16;

/// The whole run's rows and steps.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Examples, row after row.
    order: Vec<u32>,
    /// Where each row ends in `order`.
    ends: Vec<u32>,
    rows_per_step: usize,
    pub(crate) steps: usize,
}

impl Plan {
    pub(crate) fn new(examples: &[Example], options: &Options, config: &Config) -> Result<Self> {
        check(examples, options, config)?;
        let rows_per_step = (options.batch_tokens / options.sequence_tokens).max(1);
        let mut plan = Self { order: Vec::new(), ends: Vec::new(), rows_per_step, steps: 0 };
        match options.steps {
            Steps::Epochs(epochs) => {
                let whole = epochs.floor() as u64;
                (0..whole).for_each(|epoch| plan.epoch(examples, options, epoch));
                let mut rows = plan.ends.len();
                let part = epochs - epochs.floor();
                if part > 0.0 {
                    plan.epoch(examples, options, whole);
                    rows += ((plan.ends.len() - rows) as f64 * part).ceil() as usize;
                }
                plan.steps = rows.div_ceil(rows_per_step);
                plan.ends.truncate(rows);
            }
            Steps::Tokens(tokens) => {
                let (mut epoch, mut left, mut row) = (0, tokens as i64, 0);
                while left > 0 {
                    plan.epoch(examples, options, epoch);
                    epoch += 1;
                    while left > 0 && row < plan.ends.len() {
                        left -=
                            plan.row(row).iter().map(|e| examples[*e as usize].tokens.len() as i64 - 1).sum::<i64>();
                        row += 1;
                    }
                }
                plan.steps = row.div_ceil(rows_per_step);
                plan.ends.truncate(row);
            }
        }
        Ok(plan)
    }

    /// The examples of the `nth` step's rows.
    pub(crate) fn rows(&self, step: usize) -> impl Iterator<Item = &[u32]> {
        let first = step * self.rows_per_step;
        (first..(first + self.rows_per_step).min(self.ends.len())).map(|row| self.row(row))
    }

    fn row(&self, row: usize) -> &[u32] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.order[start..self.ends[row] as usize]
    }

    /// Adds one pass over the examples in a new order: each goes to the open row it fills best; when
    /// none has room the fullest closes.
    fn epoch(&mut self, examples: &[Example], options: &Options, epoch: u64) {
        let mut open: Vec<(usize, Vec<u32>)> = Vec::new();
        for example in random::permutation(examples.len(), random::bits(options.seed, epoch)) {
            let need = examples[example as usize].tokens.len() - 1;
            let best = (0..open.len()).filter(|row| open[*row].0 >= need).min_by_key(|row| open[*row].0);
            match best {
                Some(row) => {
                    open[row].0 -= need;
                    open[row].1.push(example);
                }
                None => {
                    if open.len() == OPEN_ROWS {
                        let fullest = (0..open.len()).min_by_key(|row| open[*row].0).unwrap_or(0);
                        let (_, row) = open.remove(fullest);
                        self.close(&row);
                    }
                    open.push((options.sequence_tokens - need, vec![example]));
                }
            }
        }
        open.iter().for_each(|(_, row)| self.close(row));
    }

    fn close(&mut self, row: &[u32]) {
        self.order.extend_from_slice(row);
        self.ends.push(self.order.len() as u32);
    }
}

fn check(examples: &[Example], options: &Options, config: &Config) -> Result<()> {
    let refuse = |message: &str| Err(Error::Options(message.to_owned()));
    if examples.is_empty() {
        return refuse("there are no examples to train on");
    }
    if options.sequence_tokens == 0 || options.lanes == 0 {
        return refuse("`sequence_tokens` and `lanes` must be at least 1");
    }
    if let Steps::Epochs(epochs) = options.steps
        && !(epochs.is_finite() && epochs >= 0.0)
    {
        return refuse("`epochs` must be a number, 0 or more");
    }
    let positions = config.max_position_embeddings;
    for (index, example) in examples.iter().enumerate() {
        let inputs = example.tokens.len().saturating_sub(1);
        let problem = if example.prompt.max(1) >= example.tokens.len() {
            format!("no token to predict: {} tokens, {} of them context", example.tokens.len(), example.prompt)
        } else if inputs > options.sequence_tokens {
            format!("{inputs} tokens to read do not fit a row of {}", options.sequence_tokens)
        } else if inputs > positions {
            format!("{inputs} tokens to read, the model has {positions} positions")
        } else if let Some(token) = example.tokens.iter().find(|token| **token as usize >= config.vocab_size) {
            format!("token {token} is not in the model's vocabulary of {}", config.vocab_size)
        } else if !(example.weight > 0.0 && example.weight.is_finite()) {
            format!("its weight is {}, not a number above 0", example.weight)
        } else {
            continue;
        };
        return Err(Error::Example { index, message: problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Example> {
        (0..2000).map(|i| Example { tokens: vec![1; 2 + i * 7 % 60], prompt: 1, weight: 1.0 }).collect()
    }

    #[test]
    fn an_epoch_holds_every_example_once_in_rows_that_fit() {
        let (examples, config) = (examples(), Config::llama(8, 4, 4, 1, 1));
        let options =
            Options { sequence_tokens: 64, batch_tokens: 200, steps: Steps::Epochs(2.0), ..Options::default() };
        let plan = Plan::new(&examples, &options, &config).expect("plans");
        let mut seen = vec![0; examples.len()];
        let mut read = 0;
        for row in (0..plan.steps).flat_map(|step| plan.rows(step)) {
            let tokens: usize = row.iter().map(|e| examples[*e as usize].tokens.len() - 1).sum();
            assert!(tokens <= 64);
            read += tokens;
            row.iter().for_each(|e| seen[*e as usize] += 1);
        }
        assert!(seen.iter().all(|count| *count == 2));
        assert!(read as f64 > 0.93 * (plan.ends.len() * 64) as f64, "rows are well filled");
    }

    #[test]
    fn a_budget_of_tokens_ends_in_the_step_that_reaches_it() {
        let (examples, config) = (examples(), Config::llama(8, 4, 4, 1, 1));
        let options =
            Options { sequence_tokens: 64, batch_tokens: 128, steps: Steps::Tokens(20_000), ..Options::default() };
        let plan = Plan::new(&examples, &options, &config).expect("plans");
        let rows = (0..plan.steps).flat_map(|step| plan.rows(step));
        let read: usize = rows.flatten().map(|e| examples[*e as usize].tokens.len() - 1).sum();
        assert!((20_000..20_128).contains(&read), "{read}");
    }

    #[test]
    fn a_document_longer_than_a_row_is_named() {
        let mut examples = examples();
        examples[17].tokens = vec![1; 66];
        let options = Options { sequence_tokens: 64, ..Options::default() };
        let error = Plan::new(&examples, &options, &Config::llama(8, 4, 4, 1, 1)).expect_err("too long");
        assert_eq!(error.to_string(), "example 17: 65 tokens to read do not fit a row of 64");
    }
}
