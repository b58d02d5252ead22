//! Decides what a unit's comparisons and its end come to.

use super::report::{End, Event, Operand, Record, text};
use super::suite::{Kind, Site, Suite, Unit};
use super::verdict::Outcome;
use crate::sandbox::value::Value;
use crate::sandbox::{Call, CpuSeconds, Doubt, Ending, Frame, SandboxError, Worker};

/// Characters of a value shown in a detail, and of the text of a test.
const SHOWN: usize = 60;
const TEXT: usize = 160;
/// CPU time for the comparisons of one program.
const PATIENCE: CpuSeconds = CpuSeconds(20.0);

/// What a unit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) outcome: Outcome,
    pub(crate) detail: String,
    /// Reports of the unit before and up to the comparison that decided; `None` where its end did.
    pub(crate) reports: Option<(usize, usize)>,
    /// Whether the end of the process decided.
    pub(crate) is_death: bool,
    pub(crate) doubt: Option<Doubt>,
}

/// What a comparison came to.
pub(crate) enum Compared {
    True,
    /// False, with some words where they do not follow from the operands.
    False(Option<String>),
    Raised(Outcome, String),
    /// An operand did not come that it needs.
    Open,
}

/// What each comparison of a program came to, in the order of the reports: those that only Python can make are asked for together.
#[derive(Default)]
pub(crate) struct Comparisons {
    /// `None` for one that only Python can make.
    decided: Vec<Option<Compared>>,
    /// The fields of these.
    asked: Vec<Vec<Vec<u8>>>,
}

impl Comparisons {
    pub(crate) fn add(&mut self, suite: &Suite, record: &Record) {
        for event in &record.events {
            let Some(site) = suite.sites.get(&event.site) else { continue };
            let decided = by_value(site, event);
            if decided.is_none() {
                let operand = |operand: &Operand| match operand {
                    Operand::Sent(bytes) => bytes.clone(),
                    _ => b"none".to_vec(),
                };
                let mut fields = vec![site.code.clone(), event.operands.len().to_string().into_bytes()];
                fields.extend(event.operands.iter().map(operand));
                self.asked.push(fields);
            }
            self.decided.push(decided);
        }
    }

    /// All of them, in order.
    pub(crate) fn decide(self, worker: &mut Worker) -> Result<Vec<Compared>, SandboxError> {
        let mut answers = ask(worker, &self.asked)?.into_iter();
        let answered = |decided: Option<Compared>| decided.or_else(|| answers.next()).unwrap_or(Compared::Open);
        Ok(self.decided.into_iter().map(answered).collect())
    }
}

/// Makes comparisons in a process of their own.
fn ask(worker: &mut Worker, comparisons: &[Vec<Vec<u8>>]) -> Result<Vec<Compared>, SandboxError> {
    let mut answers: Vec<Compared> = Vec::new();
    while answers.len() < comparisons.len() {
        let rest = &comparisons[answers.len()..];
        let fields: Vec<&[u8]> = rest.iter().flatten().map(Vec::as_slice).collect();
        let reply = worker.run(Call::new("compare", &fields).cpu(PATIENCE))?;
        let before = answers.len();
        let frames = reply.frames.iter().take_while(|frame| frame[0] != b"done").take(rest.len());
        answers.extend(frames.map(answer));
        if answers.len() < comparisons.len() && reply.ending != Ending::Done || answers.len() == before {
            // The one that it died of.
            let words = "the comparison with it takes too much time or memory".to_owned();
            answers.push(Compared::Raised(Outcome::Limit, words));
        }
    }
    Ok(answers)
}

/// A frame of `compare.py`.
fn answer(frame: &Frame) -> Compared {
    let words = frame.get(1).map(|words| text(words)).unwrap_or_default();
    match frame[0].as_slice() {
        b"true" => Compared::True,
        b"false" => Compared::False(None),
        b"unknown" => Compared::False(Some(words)),
        b"missing" => Compared::Open,
        tag => Compared::Raised(Outcome::of_tag(tag), words),
    }
}

/// Compares without Python, where nothing but built-in types is compared; `None` otherwise.
fn by_value(site: &Site, event: &Event) -> Option<Compared> {
    let as_compared = |holds: bool| if holds { Compared::True } else { Compared::False(None) };
    for operand in &event.operands {
        if let Operand::Large(bound) = operand {
            let parameter = if bound == "levels" { "depth" } else { bound };
            let detail = format!("a value has too many {bound} (`value_{parameter}`)");
            return Some(Compared::Raised(Outcome::Limit, detail));
        }
    }
    let [Operand::Sent(bytes)] = event.operands.as_slice() else { return None };
    let unreadable = || Compared::False(Some("what it sent is no value".to_owned()));
    match &site.kind {
        Kind::Expression => None,
        Kind::Equal { value, wanted } => {
            let Some(sent) = Value::parse(bytes) else { return Some(unreadable()) };
            match sent {
                Value::Opaque(..) if value.is_plain() => Some(as_compared(!wanted)),
                sent if value.is_plain() && sent.is_plain() => Some(as_compared(sent.equals(value) == *wanted)),
                _ => None,
            }
        }
        Kind::Truth(wanted) => {
            let Some(sent) = Value::parse(bytes) else { return Some(unreadable()) };
            sent.truth().map(|truth| as_compared(truth == *wanted))
        }
        Kind::Is { value, wanted } => {
            let Some(sent) = Value::parse(bytes) else { return Some(unreadable()) };
            Some(as_compared((sent == *value) == *wanted))
        }
    }
}

/// Decides a unit: its first comparison that does not hold, or else its end. `compared` has what each comparison came to, in
/// order; `texts` are the setup's and the unit's; `died` says how the process ended.
pub(crate) fn unit(
    suite: &Suite,
    unit: &Unit,
    texts: [&str; 2],
    record: &Record,
    compared: &mut impl Iterator<Item = Compared>,
    died: impl Fn() -> (Outcome, String, Option<Doubt>),
) -> Decision {
    let mut decided = None;
    for (place, event) in record.events.iter().enumerate() {
        let Some(site) = suite.sites.get(&event.site) else { continue };
        let Some(result) = compared.next() else { break };
        if decided.is_some() {
            continue; // its results are taken all the same
        }
        let (outcome, detail) = match result {
            Compared::True | Compared::Open => continue,
            Compared::False(why) => (Outcome::Fail, why.unwrap_or_else(|| describe(site, event))),
            Compared::Raised(outcome, words) => (outcome, words),
        };
        let reports = Some((record.reports_before(place), record.reports_before(place + 1)));
        decided = Some(Decision { outcome, detail, reports, is_death: false, doubt: None });
    }
    decided.unwrap_or_else(|| by_end(unit, texts, record, died))
}

fn by_end(
    unit: &Unit,
    [setup, test]: [&str; 2],
    record: &Record,
    died: impl Fn() -> (Outcome, String, Option<Doubt>),
) -> Decision {
    let plain = |outcome, detail| Decision { outcome, detail, reports: None, is_death: false, doubt: None };
    match &record.end {
        End::Done if record.forged || !record.is_complete(unit) => {
            plain(Outcome::Crash, "its report lacks a comparison, or has one too many".to_owned())
        }
        End::Done => plain(Outcome::Pass, String::new()),
        End::False { in_setup, line } => {
            let text = if *in_setup { setup } else { test };
            plain(Outcome::Fail, format!("`{}` is false", assertion_at(text, *line)))
        }
        End::Raised { tag, words, by_program } => {
            let outcome = Outcome::of_tag(tag);
            let whose = if *by_program || outcome != Outcome::Error { "" } else { " (raised by the test)" };
            plain(outcome, format!("{words}{whose}"))
        }
        End::Died => {
            let (outcome, detail, doubt) = died();
            Decision { outcome, detail, reports: None, is_death: true, doubt }
        }
    }
}

/// What the assertion says that begins at a line.
fn assertion_at(text: &str, line: usize) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
    cut(line.strip_prefix("assert ").unwrap_or(line))
}

/// Says why a comparison is false.
fn describe(site: &Site, event: &Event) -> String {
    let shown = |operand: &Operand| match operand {
        Operand::Sent(bytes) => Value::parse(bytes).map_or("?".to_owned(), |value| value.show(SHOWN)),
        _ => "?".to_owned(),
    };
    if let (Kind::Equal { value, wanted: true }, [operand]) = (&site.kind, event.operands.as_slice()) {
        return format!("{} is not {}", shown(operand), value.show(SHOWN));
    }
    let values: Vec<String> = site
        .operands
        .iter()
        .zip(&event.operands)
        .filter(|(_, operand)| **operand != Operand::Missing)
        .map(|(text, operand)| format!("`{}` is {}", cut(text), shown(operand)))
        .collect();
    format!("`{}` is false: {}", cut(&site.text), values.join(", "))
}

fn cut(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= TEXT { text } else { text.chars().take(TEXT - 3).collect::<String>() + "..." }
}
