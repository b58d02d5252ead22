//! Text to tokens and back: a Hugging Face tokenizer and the token that ends a text.

use crate::{Error, Result};
use std::sync::Arc;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// Words, single digits, runs of signs and of spaces: what a token of code may not cross.
const PIECES: &str = r"\n| ?[A-Za-z_]+| ?[0-9]| ?[^\sA-Za-z0-9_]+| +(?! )|\s+";

/// Names under which tokenizers keep their end-of-text token, the likeliest first.
const ENDS: [&str; 6] = ["<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>"];

/// Texts that begin pieces in the middle of a text, where a tokenizer treats a text's beginning in its own way: one that no
/// text joins to a token, and one that is a token of its own.
const BEFORE: [&str; 2] = ["\n", "a"];

/// Text to tokens and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    eos: u32,
    /// The tokens that open a text: Llama's `<s>`.
    opening: Vec<u32>,
    /// The tokens of [`BEFORE`], if a text's beginning is special: SentencePiece puts a space there.
    before: Option<[Vec<u32>; 2]>,
}

impl Tokenizer {
    /// Trains byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909) on texts, with `<pad>` as token 0 and `<eos>` as 1.
    /// The same texts in the same order give the same tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the vocabulary cannot hold 256 bytes and two special tokens.
    pub fn train_bpe<'a>(texts: impl Iterator<Item = &'a str>, vocab_size: usize) -> Result<Self> {
        if vocab_size < 258 {
            return Err(Error::Tokenizer(format!("a byte-level vocabulary has at least 258 tokens, not {vocab_size}")));
        }
        let split = Split::new(SplitPattern::Regex(PIECES.into()), SplitDelimiterBehavior::Isolated, false)
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        let bytes = ByteLevel::default().add_prefix_space(false).use_regex(false);
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(bytes),
        ])));
        inner.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .show_progress(false)
            .special_tokens(vec![AddedToken::from("<pad>", true), AddedToken::from("<eos>", true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut trainer = tokenizers::models::TrainerWrapper::BpeTrainer(trainer);
        // The trainer wants `Send` iterators; texts are few enough to hold.
        let texts: Vec<String> = texts.map(str::to_owned).collect();
        inner.train(&mut trainer, texts.into_iter()).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Self::new(inner, None)
    }

    /// Reads a `tokenizer.json`; `eos` is the token that ends a text, looked for by its usual names if not given.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it is not one, or has no token known to end a text.
    pub fn from_bytes(bytes: &[u8], eos: Option<u32>) -> Result<Self> {
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|error| Error::Tokenizer(error.to_string()))?;
        // The library expects some parts to be as it writes them, and panics if they are not.
        let read = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes));
        let read = read.map_err(|_| Error::Tokenizer("a part of it is not what the format says".to_owned()))?;
        Self::new(read.map_err(|error| Error::Tokenizer(error.to_string()))?, eos)
    }

    fn new(mut inner: tokenizers::Tokenizer, eos: Option<u32>) -> Result<Self> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::Tokenizer(error.to_string()))?;
        let eos = eos
            .or_else(|| ENDS.iter().find_map(|name| inner.token_to_id(name)))
            .ok_or_else(|| Error::Tokenizer(format!("no end-of-text token: none of {}", ENDS.join(", "))))?;
        let mut tokenizer = Self { inner: Arc::new(inner), eos, opening: Vec::new(), before: None };
        let [line, letter] = BEFORE.map(|text| tokenizer.tokens(text, false));
        let (line, letter) = (line?, letter?);
        if tokenizer.tokens("\na", false)? != [&line[..], &letter].concat() {
            tokenizer.before = Some([line, letter.clone()]);
        }
        let mut opened = tokenizer.tokens("a", true)?;
        let text = opened.windows(letter.len().max(1)).position(|tokens| tokens == letter);
        opened.truncate(text.unwrap_or_default());
        tokenizer.opening = opened;
        Ok(tokenizer)
    }

    fn tokens(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, special).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The `tokenizer.json`; the same tokenizer gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let text = self.inner.to_string(true).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(text.into_bytes())
    }

    /// A text from its beginning: with the token that opens a text, where the tokenizer has one and `text` does not begin
    /// with it. No other special tokens are added, none are forbidden.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let tokens = self.tokens(text, false)?;
        Ok(if tokens.starts_with(&self.opening) { tokens } else { [&self.opening[..], &tokens].concat() })
    }

    /// A piece in the middle of a text, which goes on behind others.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode_next(&self, text: &str) -> Result<Vec<u32>> {
        if let Some([line, _]) = &self.before
            && let Some(tokens) = self.tokens(&format!("{}{text}", BEFORE[0]), false)?.strip_prefix(&line[..])
        {
            return Ok(tokens.to_vec());
        }
        self.tokens(text, false)
    }

    /// Tokens in the middle of a text to text, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokens cannot be decoded.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let decode =
            |tokens: &[u32]| self.inner.decode(tokens, true).map_err(|error| Error::Tokenizer(error.to_string()));
        let Some([_, letter]) = &self.before else { return decode(tokens) };
        let (before, text) = (decode(letter)?, decode(&[&letter[..], tokens].concat())?);
        Ok(text.strip_prefix(&before).map(str::to_owned).unwrap_or(text))
    }

    /// The id of a token by its name, special ones included.
    pub fn token_id(&self, name: &str) -> Option<u32> {
        self.inner.token_to_id(name)
    }

    /// The token that ends a text.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// That the tokens which a configuration says end a text can be meant so: a configuration that names none may have been
    /// given another library's default on its way, under which no text would ever end.
    ///
    /// # Errors
    /// What is wrong: a token that is not there, or ordinary ones although the tokenizer has a special one for the end.
    pub(crate) fn check_ends(&self, ends: &[u32]) -> std::result::Result<(), String> {
        if let Some(missing) = ends.iter().find(|end| self.inner.id_to_token(**end).is_none()) {
            return Err(format!("`eos_token_id` is {missing}, and the tokenizer has no such token"));
        }
        let added = self.inner.get_added_tokens_decoder();
        let own = ENDS.iter().find_map(|name| self.token_id(name).filter(|id| added.contains_key(id)).zip(Some(name)));
        match (own, ends) {
            (Some((id, name)), [first, ..]) if !ends.iter().any(|end| added.contains_key(end)) => {
                let token = self.inner.id_to_token(*first).unwrap_or_default();
                Err(format!(
                    "`eos_token_id` is {first}, the ordinary token `{token}`; the tokenizer ends a text with `{name}`: \
                     write `\"eos_token_id\": {id}`"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_is_deterministic_and_text_comes_back() {
        let word = |n: u32| format!("{:b}", n + 9).replace('0', "ba").replace('1', "ku");
        let texts: Vec<String> =
            (0..200).map(|i| format!("def {}(x):\n    return x + z_{}\n", word(i * 7), word(i % 13))).collect();
        let train = || Tokenizer::train_bpe(texts.iter().map(String::as_str), 320).expect("trains");
        let (a, b) = (train(), train());
        assert_eq!(a.to_bytes().expect("writes"), b.to_bytes().expect("writes"));
        assert_eq!((a.vocab_size(), a.eos()), (320, 1));
        for text in ["", "def f(x):\n\treturn  x   ** 2\n", "naïve → ✓ 12345"] {
            let tokens = a.encode(text).expect("encodes");
            assert_eq!(a.decode(&tokens).expect("decodes"), text);
        }
        let again = Tokenizer::from_bytes(&a.to_bytes().expect("writes"), None).expect("reads");
        assert_eq!(again.encode("return x").expect("encodes"), a.encode("return x").expect("encodes"));
    }

    #[test]
    fn a_vocabulary_too_small_is_refused() {
        assert!(Tokenizer::train_bpe(["a"].into_iter(), 100).is_err());
    }

    #[test]
    fn an_end_that_no_text_could_have_is_refused() {
        let tokenizer = Tokenizer::train_bpe(["def f(x):\n    return x\n"; 9].into_iter(), 300).unwrap();
        assert_eq!(tokenizer.check_ends(&[]), Ok(()));
        assert_eq!(tokenizer.check_ends(&[1]), Ok(()));
        assert_eq!(tokenizer.check_ends(&[2, 1]), Ok(()));
        let ordinary = tokenizer.check_ends(&[2]).unwrap_err();
        assert!(ordinary.starts_with("`eos_token_id` is 2, the ordinary token `!`"), "{ordinary}");
        assert!(ordinary.ends_with("`<eos>`: write `\"eos_token_id\": 1`"), "{ordinary}");
        let missing = tokenizer.check_ends(&[1, 9999]).unwrap_err();
        assert_eq!(missing, "`eos_token_id` is 9999, and the tokenizer has no such token");
    }
}
