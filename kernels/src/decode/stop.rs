//! When a completion ends by what it says.

use super::Sampling;
use crate::Result;
use crate::model::Model;

/// End-of-text tokens and stop texts.
pub(crate) struct Stops {
    ends: Vec<u32>,
    texts: Vec<String>,
    /// Whether a token can complete a stop text: only then is the text decoded. Empty without stop texts.
    may_complete: Vec<bool>,
}

impl Stops {
    pub(crate) fn new(model: &Model, sampling: &Sampling) -> Result<Self> {
        let mut ends = vec![model.tokenizer.eos()];
        if let Some(ids) = &model.config.eos_token_id {
            ends.extend_from_slice(ids.as_slice());
        }
        let texts = sampling.stop.clone();
        let mut may_complete = Vec::new();
        if !texts.is_empty() {
            let last: Vec<char> = texts.iter().filter_map(|text| text.chars().next_back()).collect();
            // A single token's text may lack a leading space or be part of a character: those are looked at always.
            let always = last.iter().any(|character| character.is_whitespace());
            for token in 0..model.config.vocab_size as u32 {
                let text = model.tokenizer.decode(&[token])?;
                may_complete.push(always && !text.is_empty() || text.contains('\u{fffd}') || text.contains(&last[..]));
            }
        }
        Ok(Self { ends, texts, may_complete })
    }

    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// Whether the tokens' text holds a stop text, given that it did not before the last of them.
    pub(crate) fn completed(&self, model: &Model, tokens: &[u32]) -> Result<bool> {
        let looks = tokens.last().is_some_and(|token| self.may_complete.get(*token as usize) == Some(&true));
        Ok(looks && self.cut(&model.tokenizer.decode(tokens)?).is_some())
    }

    /// Where the first stop text in `text` starts.
    pub(crate) fn cut(&self, text: &str) -> Option<usize> {
        self.texts.iter().filter_map(|stop| text.find(stop.as_str())).min()
    }
}
