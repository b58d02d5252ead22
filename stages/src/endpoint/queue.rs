//! One decoder for many clients: what waits and is to be sampled alike is drawn as one batch.

use std::sync::mpsc::{Receiver, Sender};

use tracetune_kernels::Error;
use tracetune_kernels::decode::{Completion, Decoder, Request, Sampling};
use tracetune_kernels::model::Model;

/// A client's prompts. Who sends the answer away is gone if its client is.
pub(super) struct Job {
    pub(super) sampling: Sampling,
    pub(super) request: Request,
    pub(super) answer: Sender<Result<Vec<Completion>, String>>,
}

/// Draws for every job until nobody can send one any more, or `stop` gives true.
pub(super) fn work(decoder: &Decoder<Model>, jobs: &Receiver<Job>, stop: &(dyn Fn() -> bool + Sync)) {
    while let Ok(first) = jobs.recv() {
        let mut waiting: Vec<Job> = std::iter::once(first).chain(jobs.try_iter()).collect();
        while let Some(sampling) = waiting.first().map(|job| job.sampling.clone()) {
            let (batch, others) = waiting.into_iter().partition(|job: &Job| job.sampling == sampling);
            waiting = others;
            draw(decoder, batch, &sampling, stop);
        }
    }
}

fn draw(decoder: &Decoder<Model>, batch: Vec<Job>, sampling: &Sampling, stop: &(dyn Fn() -> bool + Sync)) {
    let (requests, answers): (Vec<Request>, Vec<_>) = batch.into_iter().map(|job| (job.request, job.answer)).unzip();
    let finished = |index: usize, completions: &[Completion]| {
        let _ = answers[index].send(Ok(completions.to_vec()));
    };
    if let Err(error) = decoder.generate(&requests, sampling, stop, &finished) {
        let message = if matches!(error, Error::Cancelled) { "the server ends".to_owned() } else { error.to_string() };
        for answer in &answers {
            let _ = answer.send(Err(message.clone()));
        }
    }
}
