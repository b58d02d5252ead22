//! A Python process that stays: it loads the function once and is called with batch after batch.

use std::io::{Read, Write};

use serde_json::{Value, json};
use tracetune_engine::stage::{Context, StageError};

use crate::program::{self, Program};

pub(super) const SCRIPT: &str = include_str!("worker.py");

/// A worker that has loaded its function.
pub(super) struct Worker {
    /// `None` once it has failed to answer.
    program: Option<program::Worker>,
}

/// What a worker says of a batch: for each row its result, or the traceback.
pub(super) type Results = Vec<Result<Vec<Vec<Value>>, String>>;

impl Worker {
    /// Starts a worker. `start` says what it needs to know.
    ///
    /// # Errors
    /// It can't be started, or the module can't be loaded: the message has the traceback.
    pub(super) fn start(program: &Program, start: &Value, cx: &Context) -> Result<Self, StageError> {
        let mut worker = Self { program: Some(program.start(cx)?) };
        let answer = worker.ask(start)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(StageError::input(format!("the function can't be loaded\n{error}"))),
            None => Ok(worker),
        }
    }

    /// Calls the function for each row of a batch.
    ///
    /// # Errors
    /// The run is interrupted, or the worker died: its last words are in the message.
    pub(super) fn call(&mut self, request: &Value) -> Result<Results, StageError> {
        let mut answer = self.ask(request)?;
        let Some(Value::Array(results)) = answer.get_mut("results").map(Value::take) else {
            return Err(StageError::input("the worker's answer makes no sense"));
        };
        let result = |value: Value| match value {
            Value::Array(rows) => {
                Ok(rows.into_iter().map(|row| if let Value::Array(row) = row { row } else { Vec::new() }).collect())
            }
            other => Err(other.get("error").and_then(Value::as_str).unwrap_or_default().to_owned()),
        };
        Ok(results.into_iter().map(result).collect())
    }

    fn ask(&mut self, request: &Value) -> Result<Value, StageError> {
        let Some(program) = &mut self.program else { return Err(StageError::input("the worker has ended")) };
        let answer = serde_json::to_vec(request).map_err(std::io::Error::from).and_then(|bytes| {
            let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
            program.write_all(&[&length.to_le_bytes()[..], &bytes].concat())?;
            receive(program)
        });
        answer.map_err(|_| match self.program.take().map(program::Worker::end) {
            Some(Ok(ended)) => {
                let text =
                    format!("the worker ended with {} while it computed these rows\n{}", ended.status, ended.tail);
                StageError::input(text.trim_end())
            }
            Some(Err(error)) => error,
            None => StageError::input("the worker has ended"),
        })
    }
}

fn receive(from: &mut impl Read) -> std::io::Result<Value> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// What a worker is told first.
pub(super) fn start(
    params: &serde_json::Map<String, Value>,
    adds: &std::collections::BTreeMap<String, String>,
    (many, single): (bool, bool),
    state: Option<&str>,
) -> Value {
    json!({"params": params, "adds": adds, "many": many, "single": single, "state": state})
}
