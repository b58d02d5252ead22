//! Tests, sorted by how they can be checked (`prepare.py`), each distinct one once.

use std::collections::{BTreeSet, HashMap};

use tracetune_engine::stage::StageError;

use crate::sandbox::value::Value;
use crate::sandbox::{CpuSeconds, Ending, Sandbox, SandboxError};

/// How many tests one job sorts.
const TESTS_PER_JOB: usize = 200;

/// How a test is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The code is an expression; its value is compared outside.
    Value,
    /// The code is an expression that must be true.
    Truth,
    /// The code is statements that must not raise.
    Exec,
}

impl Mode {
    pub(crate) fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Value => b"value",
            Self::Truth => b"truth",
            Self::Exec => b"exec",
        }
    }
}

/// A sorted test.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub(crate) mode: Mode,
    /// What is evaluated.
    pub(crate) code: String,
    /// The same as marshalled bytecode of the sandbox's interpreter.
    pub(crate) compiled: Vec<u8>,
    /// What a [`Mode::Value`] test expects; stays outside.
    pub(crate) expected: Value,
}

/// Why tests could not be sorted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadTest {
    /// One is no Python.
    #[error("test `{test}` does not parse: {reason}")]
    Syntax { test: String, reason: String },
    /// Nothing is known about the tests.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl From<BadTest> for StageError {
    fn from(error: BadTest) -> Self {
        match error {
            BadTest::Syntax { .. } => Self::input(error.to_string()),
            BadTest::Sandbox(error) => error.into(),
        }
    }
}

/// Sorted tests by their text.
#[derive(Debug, Default)]
pub struct Tests(HashMap<String, Test>);

impl Tests {
    /// Sorts all distinct tests among `tests`.
    ///
    /// # Errors
    /// [`BadTest::Syntax`] if one does not parse.
    pub(crate) fn prepare<'a>(
        sandbox: &Sandbox,
        tests: impl IntoIterator<Item = &'a String>,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, BadTest> {
        let distinct: Vec<&String> = tests.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let chunks: Vec<&[&String]> = distinct.chunks(TESTS_PER_JOB).collect();
        let sorted = sandbox.map(&chunks, cancelled, &|_| {}, |worker, chunk| {
            let fields: Vec<&[u8]> = chunk.iter().map(|test| test.as_bytes()).collect();
            worker.call_for("prepare", &fields, CpuSeconds(60.0))
        })?;
        let mut prepared = HashMap::new();
        for (chunk, reply) in chunks.iter().zip(sorted) {
            if reply.ending != Ending::Done || reply.frames.len() != chunk.len() + 1 {
                let message = format!("the tests can't be parsed: {:?}", reply.ending);
                return Err(SandboxError::ForkServer(message).into());
            }
            for (&test, frame) in chunk.iter().zip(reply.frames) {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let sorted = match <[Vec<u8>; 4]>::try_from(frame) {
                    Ok([mode, code, compiled, expected]) => {
                        let mode = match mode.as_slice() {
                            b"value" => Mode::Value,
                            b"truth" => Mode::Truth,
                            _ => Mode::Exec,
                        };
                        let expected = Value::parse(&expected).unwrap_or(Value::None);
                        Test { mode, code: text(&code), compiled, expected }
                    }
                    Err(bad) => {
                        let reason = bad.get(1).map_or(String::new(), |reason| text(reason));
                        return Err(BadTest::Syntax { test: test.clone(), reason });
                    }
                };
                prepared.insert(test.clone(), sorted);
            }
        }
        Ok(Self(prepared))
    }

    pub(crate) fn get(&self, test: &str) -> Option<&Test> {
        self.0.get(test)
    }
}
