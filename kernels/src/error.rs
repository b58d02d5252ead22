//! What can go wrong in this crate; a caller that knows a file or a row adds it.

use std::path::PathBuf;

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be read, written, run or trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A configuration that this crate cannot run.
    #[error("{0}")]
    Config(String),
    /// A file that is not what its name says.
    #[error("`{}`: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The checkpoint lacks a tensor that the configuration asks for.
    #[error("`{}` has no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor's shape differs from what the configuration says.
    #[error("tensor `{tensor}` has shape {found:?}, the configuration asks for {expected:?}")]
    Shape {
        /// The tensor's name.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape by the configuration.
        expected: Vec<usize>,
    },
    /// The tokenizer could not be read or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A request that cannot be decoded.
    #[error("request {index}: {message}")]
    Request {
        /// Its index in the list given.
        index: usize,
        /// What is wrong with it.
        message: String,
    },
    /// An example that cannot be trained on.
    #[error("example {index}: {message}")]
    Example {
        /// Its index in the list given.
        index: usize,
        /// What is wrong with it.
        message: String,
    },
    /// Options of a training run that cannot be used.
    #[error("{0}")]
    Options(String),
    /// The loss or the gradient stopped being a number.
    #[error("training diverged at step {step}: loss {loss}, gradient norm {grad_norm}")]
    Diverged {
        /// The step, from 1.
        step: usize,
        /// Its loss.
        loss: f32,
        /// Its gradient norm before clipping.
        grad_norm: f32,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The threads asked for could not be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

/// A pool of `threads` workers (at least one) of the caller's own: nothing here touches rayon's global pool.
pub(crate) fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| Error::Threads(error.to_string()))
}
