//! Colours and verbs. What is printed is clear without them.

use std::fmt;

use clap::builder::styling::{AnsiColor, Style};

/// What a line of the story is about; right-aligned, as cargo does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Plan,
    Cached,
    Running,
    Finished,
    Skipped,
    Failed,
    Stale,
    Note,
    Warning,
    Created,
    Done,
    Interrupted,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Plan => "Plan",
            Self::Cached => "Cached",
            Self::Running => "Running",
            Self::Finished => "Finished",
            Self::Skipped => "Skipped",
            Self::Failed => "Failed",
            Self::Stale => "Stale",
            Self::Note => "Note",
            Self::Warning => "Warning",
            Self::Created => "Created",
            Self::Done => "Done",
            Self::Interrupted => "Interrupted",
        }
    }

    fn style(self) -> Style {
        let color = match self {
            Self::Failed | Self::Interrupted => AnsiColor::Red,
            Self::Skipped | Self::Stale | Self::Note | Self::Warning => AnsiColor::Yellow,
            Self::Running | Self::Plan => AnsiColor::Cyan,
            Self::Cached | Self::Finished | Self::Created | Self::Done => AnsiColor::Green,
        };
        color.on_default().bold()
    }
}

/// A line that begins with a verb.
pub(crate) fn line(verb: Verb, text: impl fmt::Display) -> String {
    let style = verb.style();
    format!("{style}{:>12}{style:#} {text}", verb.word())
}

/// A heading.
pub(crate) fn heading(text: &str) -> String {
    painted(Style::new().bold(), text)
}

/// Something less important than what is beside it.
pub(crate) fn dim(text: &str) -> String {
    painted(Style::new().dimmed(), text)
}

/// The word `error`.
pub(crate) fn error(text: &str) -> String {
    painted(AnsiColor::Red.on_default().bold(), text)
}

/// The word `help`.
pub(crate) fn help(text: &str) -> String {
    painted(AnsiColor::Cyan.on_default().bold(), text)
}

/// Something good.
pub(crate) fn good(text: &str) -> String {
    painted(AnsiColor::Green.on_default().bold(), text)
}

/// Something to look at.
pub(crate) fn warning(text: &str) -> String {
    painted(AnsiColor::Yellow.on_default().bold(), text)
}

fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
