//! All printing: stdout has the answer, stderr the story.

mod diagnostics;
pub(crate) mod numbers;
pub(crate) mod progress;
pub(crate) mod results;
pub(crate) mod style;
pub(crate) mod table;

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::json;
use tracetune_engine::diagnostic::{Diagnostic, Severity};

use crate::args::Global;
use crate::exit;

/// How wide text is laid out where the output is no terminal.
const PLAIN_WIDTH: usize = 110;

/// The screen.
pub(crate) struct Ui {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
}

/// An error that the user has already been told about; ends the process with its code.
#[derive(Debug)]
pub(crate) struct Reported(pub(crate) u8);

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("see above")
    }
}

impl std::error::Error for Reported {}

/// An error with something to do about it.
#[derive(Debug)]
pub(crate) struct Helped {
    pub(crate) message: String,
    pub(crate) help: String,
}

impl fmt::Display for Helped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Helped {}

/// An error for [`Ui::fatal`] with something to do about it.
pub(crate) fn helped(message: impl Into<String>, help: impl Into<String>) -> anyhow::Error {
    Helped { message: message.into(), help: help.into() }.into()
}

impl Ui {
    pub(crate) fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet, verbose: global.verbose }
    }

    /// A part of the answer, on stdout.
    pub(crate) fn answer(&self, text: impl fmt::Display) {
        let written = writeln!(anstream::stdout().lock(), "{text}");
        if let Err(error) = written {
            // Whoever reads has enough: `tracetune plan | head`.
            let code = if error.kind() == io::ErrorKind::BrokenPipe { exit::DONE } else { exit::WRONG };
            std::process::exit(i32::from(code));
        }
    }

    /// The answer as one JSON object.
    pub(crate) fn answer_json(&self, value: &impl Serialize) {
        let text =
            serde_json::to_string_pretty(value).unwrap_or_else(|error| json!({"error": error.to_string()}).to_string());
        self.answer(text);
    }

    /// A line of the story, on stderr; `-q` leaves it out.
    pub(crate) fn story(&self, text: impl fmt::Display) {
        if !self.quiet {
            self.always(text);
        }
    }

    /// A line of the story after a right-aligned verb.
    pub(crate) fn verb(&self, verb: style::Verb, text: impl fmt::Display) {
        self.story(style::line(verb, text));
    }

    /// A line on stderr even with `-q`.
    pub(crate) fn always(&self, text: impl fmt::Display) {
        to_stderr(text);
    }

    /// Whether stderr can show something that moves.
    pub(crate) fn moving(&self) -> bool {
        !self.quiet && !self.json && io::stderr().is_terminal()
    }

    /// How many columns tables on stdout may have.
    pub(crate) fn width(&self) -> usize {
        let size = console::Term::stdout().size_checked();
        size.map_or(PLAIN_WIDTH, |(_, columns)| usize::from(columns).clamp(60, 200))
    }

    /// Prints what is odd or wrong.
    pub(crate) fn diagnostics(&self, problems: &[Diagnostic]) {
        if self.json {
            return;
        }
        for problem in problems {
            if problem.severity == Severity::Error || !self.quiet {
                self.always(diagnostics::rendered(problem, self.width()));
            }
        }
    }

    /// Prints why a pipeline can't be used.
    pub(crate) fn wrong_pipeline(&self, problems: &[Diagnostic]) {
        if self.json {
            let problems: Vec<_> = problems.iter().map(Diagnostic::to_json).collect();
            self.answer_json(&json!({"ok": false, "diagnostics": problems}));
            return;
        }
        self.diagnostics(problems);
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let noun = if errors == 1 { "error" } else { "errors" };
        self.always(format!("{}: the pipeline has {errors} {noun}", style::error("error")));
    }

    /// Prints an error and gives the exit code for it.
    pub(crate) fn fatal(&self, error: &anyhow::Error) -> u8 {
        if let Some(Reported(code)) = error.downcast_ref() {
            return *code;
        }
        let help = error.downcast_ref::<Helped>().map(|helped| helped.help.as_str());
        let mut message = error.to_string();
        for cause in error.chain().skip(1) {
            // Errors that quote their cause would be repeated.
            if !message.contains(&cause.to_string()) {
                message = format!("{message}: {cause}");
            }
        }
        if self.json {
            self.answer_json(&json!({"ok": false, "error": message, "help": help}));
            return exit::WRONG;
        }
        self.always(format!("{}: {message}", style::error("error")));
        if let Some(help) = help {
            self.always(format!("{}: {help}", style::help("help")));
        }
        exit::WRONG
    }
}

fn to_stderr(text: impl fmt::Display) {
    // A closed stderr is no reason to stop working.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}
