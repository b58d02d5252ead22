//! A run as it goes on: lines with a verb, and bars where something can move.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracetune_engine::pipeline::Pipeline;
use tracetune_engine::runs::MetricRow;
use tracetune_engine::schedule::Event;

use super::Ui;
use super::numbers;
use super::style::{self, Verb};
use super::table::cut;
use crate::{Reading, Watch, warnings};

/// What a program wrote, without what would make the terminal do something: colours, moves of the cursor, titles.
pub(crate) fn defused(text: &str) -> String {
    let plain = console::strip_ansi_codes(text);
    let shown = |character: char| match character {
        '\n' | '\t' => character,
        character if character.is_control() => '\u{fffd}',
        character => character,
    };
    plain.chars().map(shown).collect()
}

/// How many names of cached stages a line may hold.
const NAMES_WIDTH: usize = 70;

/// Shows events; shared by the threads of a run.
pub(crate) struct Progress<'a> {
    ui: &'a Ui,
    bars: Option<MultiProgress>,
    /// The stages whose first output is no table: they have no rows to tell of.
    models: HashSet<String>,
    watch: Option<Watch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The bars of running stages.
    running: HashMap<String, ProgressBar>,
    /// Stages found in the cache, or left out, since the last line: told together.
    quiet: Vec<String>,
    /// Which of the two they were, and why the first was.
    quiet_verb: Option<(Verb, String)>,
    /// The stages that started in this run.
    started: HashSet<String>,
    /// How far a stage was when it was last told, where nothing moves.
    told: HashMap<String, u64>,
    /// The run's figures so far, and the signs of failure that were told of them.
    readings: Vec<Reading>,
    warned: HashSet<(&'static str, String, i32)>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(ui: &'a Ui, pipeline: &Pipeline, watch: Option<Watch>) -> Self {
        let models = pipeline.nodes.iter().filter(|node| node.gives_model()).map(|node| node.id.clone()).collect();
        Self { ui, bars: ui.moving().then(MultiProgress::new), models, watch, state: Mutex::default() }
    }

    /// Shows one event.
    pub(crate) fn show(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::StageCached { node, rows, .. } => {
                if self.ui.verbose > 0 {
                    self.line(Verb::Cached, format_args!("{node} ({})", numbers::counted(*rows, "row")));
                } else {
                    self.keep(&mut state, Verb::Cached, node, "");
                }
                return;
            }
            Event::StageSkipped { node, reason } => {
                end(&mut state, node);
                if self.ui.verbose > 0 {
                    self.line(Verb::Skipped, format_args!("{node}: {reason}"));
                } else {
                    self.keep(&mut state, Verb::Skipped, node, reason);
                }
                return;
            }
            // A cached stage says again what it said when it was computed: old news.
            Event::StageNote { node, .. } if self.ui.verbose == 0 && !state.started.contains(node) => return,
            Event::StageLog { node, line } => {
                if self.ui.verbose > 0 {
                    self.print(&format!("{} {}", style::dim(&format!("{node} |")), defused(line)), false);
                }
                return;
            }
            Event::StageProgress { node, done, total, text } => {
                return self.advance(&mut state, node, *done, *total, text);
            }
            Event::Metrics { node, round, variant, rows } => {
                return self.watch(&mut state, node, *round, variant, rows);
            }
            Event::RunStarted { .. } => return,
            _ => self.tell_kept(&mut state),
        }
        match event {
            Event::StageStarted { node, kind } => {
                state.started.insert(node.clone());
                self.start(&mut state, node, kind);
            }
            Event::StageFinished { node, rows, rows_cached, rows_computed, wall_s, .. } => {
                end(&mut state, node);
                let mut text = format!("{node} in {}", numbers::seconds(*wall_s));
                if !self.models.contains(node) {
                    text = format!("{text}: {}", numbers::counted(*rows, "row"));
                }
                if *rows_cached > 0 {
                    text = format!(
                        "{text} ({} computed, {} cached)",
                        numbers::count(*rows_computed),
                        numbers::count(*rows_cached)
                    );
                }
                self.line(Verb::Finished, text);
            }
            Event::StageFailed { node, error, help } => {
                end(&mut state, node);
                let help = help.as_ref().map(|help| format!("\n{:>12} {help}", "help:")).unwrap_or_default();
                let text = style::line(Verb::Failed, format_args!("{node}: {}{help}", defused(error)));
                self.print(&text, true);
            }
            Event::StageRetry { node, error, pause_s } => {
                self.line(Verb::Note, format_args!("{node}: {error}; again in {}", numbers::seconds(*pause_s)));
            }
            Event::StageNote { node, text } => self.line(Verb::Note, format_args!("{node}: {}", defused(text))),
            Event::RunFinished { .. } => {
                for (_, bar) in state.running.drain() {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
    }

    /// Tells at once, in a line, of what a stage's metrics warn of; the run's end says more.
    fn watch(&self, state: &mut State, node: &str, round: i32, variant: &str, rows: &[MetricRow]) {
        let stage = node.split(['@', '[']).next().unwrap_or(node);
        state.readings.extend(rows.iter().map(|row| Reading {
            stage: stage.to_owned(),
            variant: variant.to_owned(),
            round,
            split: row.split.clone(),
            metric: row.metric.clone(),
            value: row.value,
            n: row.n,
        }));
        for warning in warnings::of_readings(self.watch, &state.readings) {
            let is_new = state.warned.insert((warning.sign, warning.variant.clone(), warning.round));
            if is_new && state.started.contains(node) {
                self.print(&warnings::line(&warning), false);
            }
        }
    }

    /// Keeps a stage of which there is little to tell until there is something else.
    fn keep(&self, state: &mut State, verb: Verb, node: &str, reason: &str) {
        if state.quiet_verb.as_ref().is_some_and(|(kept, _)| *kept != verb) {
            self.tell_kept(state);
        }
        state.quiet_verb.get_or_insert_with(|| (verb, reason.to_owned()));
        state.quiet.push(node.to_owned());
    }

    /// Tells in one line what was kept.
    fn tell_kept(&self, state: &mut State) {
        let names = std::mem::take(&mut state.quiet);
        let Some((verb, reason)) = state.quiet_verb.take() else { return };
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        match names.as_slice() {
            [one] => self.line(verb, format_args!("{one}{reason}")),
            many => {
                let names = cut(&many.join(", "), NAMES_WIDTH);
                self.line(verb, format_args!("{} stages: {names}", many.len()));
            }
        }
    }

    /// A function that says that the run is being stopped, for the thread that hears of it.
    pub(crate) fn stopping(&self) -> impl Fn() + Send + 'static + use<> {
        let (bars, quiet) = (self.bars.clone(), self.ui.quiet);
        move || {
            let text = style::line(Verb::Interrupted, "finishing rows in flight; Ctrl-C again to stop now");
            let print = || super::to_stderr(&text);
            match &bars {
                _ if quiet => {}
                Some(bars) => bars.suspend(print),
                None => print(),
            }
        }
    }

    fn start(&self, state: &mut State, node: &str, kind: &str) {
        let Some(bars) = &self.bars else {
            return self.line(Verb::Running, format_args!("{node} ({kind})"));
        };
        let bar = bars.add(ProgressBar::new_spinner());
        bar.set_style(spinner());
        bar.set_message(node.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        state.running.insert(node.to_owned(), bar);
    }

    fn advance(&self, state: &mut State, node: &str, done: u64, total: u64, text: &str) {
        if let Some(bar) = state.running.get(node) {
            if total > 0 && bar.length() != Some(total) {
                bar.set_style(counting());
                bar.set_length(total);
            }
            bar.set_position(done);
            bar.set_message(if text.is_empty() { node.to_owned() } else { format!("{node} | {text}") });
        } else if self.ui.verbose > 0 && total > 0 {
            // Where nothing moves, tell each tenth.
            let tenth = done * 10 / total;
            let last = state.told.entry(node.to_owned()).or_default();
            if tenth > *last {
                *last = tenth;
                let text = if text.is_empty() { String::new() } else { format!(" | {text}") };
                self.line(
                    Verb::Running,
                    format_args!("{node} {}/{}{text}", numbers::count(done), numbers::count(total)),
                );
            }
        }
    }

    fn line(&self, verb: Verb, text: impl fmt::Display) {
        self.print(&style::line(verb, text), false);
    }

    /// Prints above the bars.
    fn print(&self, text: &str, even_if_quiet: bool) {
        let print = || if even_if_quiet { self.ui.always(text) } else { self.ui.story(text) };
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

fn end(state: &mut State, node: &str) {
    if let Some(bar) = state.running.remove(node) {
        bar.finish_and_clear();
    }
}

fn spinner() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner:>10.cyan}   {wide_msg} {elapsed}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn counting() -> ProgressStyle {
    let style = ProgressStyle::with_template(
        "{spinner:>10.cyan}   [{bar:24}] {human_pos}/{human_len} {wide_msg} {elapsed}, {eta} left",
    );
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
