//! Models of the Hugging Face Hub, `hf://org/name@revision`, in the cache that other tools use too.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use tracetune_engine::stage::{Context, ParamError, StageError};
use tracetune_kernels::model::Model;

use super::failed;

/// A model of the hub at a revision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hub {
    /// `org/name`.
    name: String,
    /// A branch, a tag or a commit.
    revision: String,
}

impl Hub {
    /// Reads `hf://org/name@revision`; without a revision it is `main`. `None` if the source is something else.
    pub(super) fn parse(source: &str) -> Option<Result<Self, ParamError>> {
        let place = source.strip_prefix("hf://")?;
        let (name, revision) = place.split_once('@').unwrap_or((place, "main"));
        let is_word = |word: &str| {
            !word.is_empty()
                && !word.starts_with('.')
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let is_name = name.split('/').count() <= 2 && name.split('/').all(is_word);
        if !is_name || revision.is_empty() || revision.split('/').any(|part| !is_word(part)) {
            return Some(Err(ParamError {
                param: "source",
                message: "names no model of the hub".to_owned(),
                help: Some("write `hf://org/name`, or `hf://org/name@revision`".to_owned()),
            }));
        }
        Some(Ok(Self { name: name.to_owned(), revision: revision.to_owned() }))
    }

    /// The commit that the revision stands for: what the key holds. A branch is asked for once a process; where the hub
    /// can't be reached, or `HF_HUB_OFFLINE` is set, the cache's word counts.
    pub(super) fn commit(&self) -> Result<String, StageError> {
        static KNOWN: Mutex<BTreeMap<Hub, String>> = Mutex::new(BTreeMap::new());
        if is_commit(&self.revision) {
            return Ok(self.revision.clone());
        }
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(commit) = known.get(self) {
            return Ok(commit.clone());
        }
        let refs = cache().path().join(self.repo(&self.revision).folder_name()).join("refs").join(&self.revision);
        let cached = std::fs::read_to_string(refs).ok().map(|text| text.trim().to_owned());
        let asked = if is_offline() { None } else { Some(self.api(&self.revision)?.info().map(|info| info.sha)) };
        let commit = match (asked, cached) {
            (Some(Ok(commit)), _) if is_commit(&commit) => {
                let _ = self.cached(&self.revision).create_ref(&commit);
                commit
            }
            (Some(Err(error)), None) => return Err(self.told(&error)),
            (Some(Err(error)), Some(commit)) if !is_refusal(&error) && is_commit(&commit) => commit,
            (None, Some(commit)) if is_commit(&commit) => commit,
            (None, _) => return Err(self.not_cached()),
            (Some(Err(error)), _) => return Err(self.told(&error)),
            (Some(Ok(answer)), _) => return Err(StageError::input(format!("the hub's commit `{answer}` is none"))),
        };
        known.insert(self.clone(), commit.clone());
        Ok(commit)
    }

    /// The folder with the model's files, fetched unless they are in the cache.
    /// Told and ended by a stage's context, if there is one.
    pub(super) fn fetch(&self, cx: Option<&Context>) -> Result<PathBuf, StageError> {
        let commit = self.commit()?;
        let files = Files { hub: self, commit: &commit, api: self.api(&commit)?, cx };
        files.needed("config.json")?;
        files.needed("tokenizer.json")?;
        for name in Model::SIDECARS {
            files.optional(name)?;
        }
        let folder = self.cached(&commit).pointer_path(&commit);
        if !files.optional("model.safetensors")? {
            files.needed(Model::INDEX)?;
            for name in Model::files(&folder).map_err(failed)? {
                files.needed(&name)?;
            }
        }
        Ok(folder)
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, revision.to_owned())
    }

    fn cached(&self, revision: &str) -> CacheRepo {
        cache().repo(self.repo(revision))
    }

    /// Where files are fetched: `HF_ENDPOINT`, with the token of `HF_TOKEN` or of the hub's own login.
    fn api(&self, revision: &str) -> Result<ApiRepo, StageError> {
        let cache = cache();
        let token = env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()).or_else(|| cache.token());
        let mut builder = ApiBuilder::from_cache(cache).with_token(token).with_progress(false).with_retries(2);
        if let Ok(endpoint) = env::var("HF_ENDPOINT") {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        Ok(builder.build().map_err(|error| self.told(&error))?.repo(self.repo(revision)))
    }

    fn told(&self, error: &ApiError) -> StageError {
        let Self { name, revision } = self;
        let refused = |message: String, help: &str| StageError::Environment { message, help: Some(help.to_owned()) };
        match status(error) {
            Some(401 | 403) => refused(
                format!("the hub does not give `{name}` to everyone ({error})"),
                "set HF_TOKEN to a token of someone who may have it",
            ),
            Some(404) => refused(
                format!("the hub has no model `{name}` with a revision `{revision}`"),
                "look at the spelling; a private model is not seen without HF_TOKEN",
            ),
            _ => StageError::Transient {
                message: format!("the hub does not answer for `{name}` at `{revision}`: {error}"),
                help: Some("HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 takes what is in the cache".to_owned()),
            },
        }
    }

    fn not_cached(&self) -> StageError {
        StageError::Environment {
            message: format!("`{}` at `{}` is not in the hub's cache", self.name, self.revision),
            help: Some("HF_HUB_OFFLINE is set: unset it once to fetch the model".to_owned()),
        }
    }
}

/// The files of a commit.
struct Files<'a> {
    hub: &'a Hub,
    commit: &'a str,
    api: ApiRepo,
    cx: Option<&'a Context>,
}

impl Files<'_> {
    fn needed(&self, name: &str) -> Result<(), StageError> {
        if self.optional(name)? {
            return Ok(());
        }
        let message = format!("`{}` has no file `{name}` at `{}`", self.hub.name, self.hub.revision);
        let help = "a model is `config.json`, `tokenizer.json` and safetensors; other formats of weights are not read";
        Err(StageError::Environment { message, help: Some(help.to_owned()) })
    }

    /// Whether there is such a file; it is in the cache then.
    fn optional(&self, name: &str) -> Result<bool, StageError> {
        if self.hub.cached(self.commit).pointer_path(self.commit).join(name).exists() {
            return Ok(true);
        }
        if is_offline() {
            return Ok(false);
        }
        if self.cx.is_some_and(Context::cancelled) {
            return Err(StageError::Cancelled);
        }
        let progress = Fetched { cx: self.cx, name: name.to_owned(), done: 0, total: 0 };
        match self.api.download_with_progress(name, progress) {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.hub.told(&error)),
        }
    }
}

struct Fetched<'a> {
    cx: Option<&'a Context>,
    name: String,
    done: u64,
    total: u64,
}

impl Progress for Fetched<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
    }
    fn update(&mut self, size: usize) {
        self.done += size as u64;
        if let Some(cx) = self.cx {
            cx.progress(self.done, self.total, &self.name);
        }
    }
    fn finish(&mut self) {}
}

/// The cache that Hugging Face's own tools use.
fn cache() -> Cache {
    env::var_os("HF_HUB_CACHE").map_or_else(Cache::from_env, |folder| Cache::new(folder.into()))
}

fn is_offline() -> bool {
    let is_set = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str());
    env::var("HF_HUB_OFFLINE").is_ok_and(is_set)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The answer's status, if there was an answer.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Whether the hub has answered, and means it.
fn is_refusal(error: &ApiError) -> bool {
    matches!(status(error), Some(400..500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_hub_has_an_organisation_a_name_and_a_revision() {
        let parse = |source| Hub::parse(source).map(|hub| hub.map(|hub| (hub.name, hub.revision)).map_err(|_| ()));
        let hub = |name: &str, revision: &str| Some(Ok((name.to_owned(), revision.to_owned())));
        assert_eq!(parse("hf://org/name"), hub("org/name", "main"));
        assert_eq!(parse("hf://gpt2@refs/pr/7"), hub("gpt2", "refs/pr/7"));
        assert_eq!(parse("hf://org/na.me-1@v1.0"), hub("org/na.me-1", "v1.0"));
        for wrong in ["hf://", "hf://org/", "hf://a/b/c", "hf://org/name@", "hf://../x", "hf://a/b@../c", "hf://a b"] {
            assert_eq!(parse(wrong), Some(Err(())), "{wrong}");
        }
        assert_eq!(parse("org/name"), None);
    }
}
