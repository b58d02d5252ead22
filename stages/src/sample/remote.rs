//! Draws from a model behind an API, some at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracetune_engine::stage::{Context, StageError};
use tracetune_kernels::decode::{Draw, Sampling};

use super::{Params, Precision};
use crate::endpoint::client::{Answer, Client};
use crate::endpoint::{Api, Endpoint};

/// Connects, and lets the run's log say what that means.
pub(super) fn open(endpoint: Endpoint, params: &Params, cx: &Context) -> Result<Client, StageError> {
    if params.precision != Precision::default() {
        let source = endpoint.source();
        return Err(StageError::input(format!("`precision` is for weights that are here, not those of `{source}`")));
    }
    if !params.start.is_empty() && endpoint.options.api == Api::Chat {
        let message =
            format!("`start` needs an endpoint that completes text; `{}` answers messages", endpoint.source());
        return Err(StageError::input(message));
    }
    cx.note(&format!("what `{}` draws is recorded, not reproducible", endpoint.source()));
    Client::new(endpoint, Duration::from_secs(params.timeout_s))
}

/// An answer for each prompt and draw, in their order; the first error ends the rest.
pub(super) fn ask(
    client: &Client,
    sampling: &Sampling,
    asked: &[(&str, Draw)],
    concurrency: usize,
    cx: &Context,
) -> Result<Vec<Option<Answer>>, StageError> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let answers: Mutex<Vec<Option<Answer>>> = Mutex::new(vec![None; asked.len()]);
    let failure: Mutex<Option<StageError>> = Mutex::default();
    let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
    let stop = || cx.cancelled() || failed().is_some();
    let work = || {
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some((prompt, draw)) = asked.get(index)
        {
            match client.draw(prompt, sampling, *draw, &stop) {
                Ok(answer) => answers.lock().unwrap_or_else(PoisonError::into_inner)[index] = answer,
                Err(error) => {
                    failed().get_or_insert(error);
                    return;
                }
            }
            cx.progress(done.fetch_add(1, Ordering::Relaxed) as u64 + 1, asked.len() as u64, "");
        }
    };
    thread::scope(|scope| {
        for _ in 0..concurrency.min(asked.len()) {
            scope.spawn(work);
        }
    });
    match failed().take() {
        Some(error) => Err(error),
        None => Ok(answers.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}
