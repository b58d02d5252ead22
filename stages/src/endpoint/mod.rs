//! Models behind OpenAI's HTTP protocol, both ways: [`client`] draws from one, [`server`] offers one of ours.
//!
//! What an endpoint answers is recorded, not reproducible: the same request may give other text tomorrow.

pub mod chat;
pub mod client;
mod pace;
mod queue;
mod request;
pub mod server;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::{ParamError, StageError};

/// The file that stands for the weights in the directory of a model that is an endpoint.
const FILE: &str = "endpoint.json";

/// What opens a `source` that is an endpoint: `openai:URL#model`.
const SCHEME: &str = "openai:";

/// Which of the protocol's two ways to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `URL/completions`: the model goes on with the prompt as it is.
    #[default]
    Completions,
    /// `URL/chat/completions`: the prompt is the user's one message.
    Chat,
}

/// How to ask an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `completions` sends the rendered prompt as it is, `chat` as the user's one message.
    pub api: Api,
    /// Name of the environment variable that holds the key; empty sends none. The key itself is never written down.
    pub key_env: String,
    /// Whether to ask for log-probabilities, which not every server gives; without them `logprob` is NaN.
    pub logprobs: bool,
}

/// A model behind an API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where the API starts, e.g. `https://api.openai.com/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// How to ask it.
    #[serde(flatten)]
    pub options: Options,
}

impl Endpoint {
    /// The endpoint that a model's `source` names; `None` if it names something else.
    ///
    /// # Errors
    /// It is not `openai:URL#model`, or its URL has a user, a password or a query, which may be secrets.
    pub fn parse(source: &str, options: &Options) -> Option<Result<Self, ParamError>> {
        let rest = source.strip_prefix(SCHEME)?;
        let wrong = |message: &str, help: &str| ParamError {
            param: "source",
            message: message.to_owned(),
            help: Some(help.to_owned()),
        };
        let example = "write `openai:URL#model`, e.g. `openai:http://127.0.0.1:8000/v1#my-model`";
        let Some((url, model)) = rest.split_once('#').filter(|(_, model)| !model.is_empty()) else {
            return Some(Err(wrong("names no model of the endpoint", example)));
        };
        let Some(host) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
            return Some(Err(wrong("has no URL that begins with http:// or https://", example)));
        };
        if url.contains('?') || host.split('/').next().is_some_and(|host| host.contains('@')) {
            let help = "keep the key in an environment variable and name it: `endpoint = { key_env = \"API_KEY\" }`";
            return Some(Err(wrong("has a user, a password or a query in its URL", help)));
        }
        Some(Ok(Self { url: url.trim_end_matches('/').to_owned(), model: model.to_owned(), options: options.clone() }))
    }

    /// Writes the endpoint as a model's directory.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, directory: &Path) -> Result<(), StageError> {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from)?;
        Ok(fs_err::write(directory.join(FILE), text)?)
    }

    /// The endpoint that a model's directory stands for; `None` if the directory holds weights.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn load(directory: &Path) -> Result<Option<Self>, StageError> {
        let file = directory.join(FILE);
        if !file.is_file() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&fs_err::read(file)?).map_err(std::io::Error::from)?))
    }

    /// How the pipeline's file writes it.
    pub fn source(&self) -> String {
        format!("{SCHEME}{}#{}", self.url, self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_url_and_model_and_no_secret() {
        let parse = |source: &str| Endpoint::parse(source, &Options::default());
        assert!(parse("builtin:tiny").is_none());
        let endpoint = parse("openai:https://host/v1/#org/model").expect("an endpoint").expect("a good one");
        assert_eq!((endpoint.url.as_str(), endpoint.model.as_str()), ("https://host/v1", "org/model"));
        for wrong in
            ["openai:https://host/v1", "openai:host/v1#m", "openai:https://u:p@host#m", "openai:http://h/?k=1#m"]
        {
            assert!(parse(wrong).is_some_and(|parsed| parsed.is_err()), "{wrong}");
        }
    }
}
