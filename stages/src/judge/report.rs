//! What the process that runs a program (`inside.py`) is asked, and what it reports.

use super::Job;
use super::suite::{Suite, Unit};
use crate::sandbox::{Reply, ValueBounds};

/// Frames that a unit may send at a site whose number of comparisons is unknown.
const MOST_UNKNOWN: usize = 100_000;

/// The fields of a job: the program and the units. `stops[i]` is the number of reports after which unit i ends.
pub(crate) fn request(job: &Job, suite: &Suite, stops: &[Option<usize>], bounds: ValueBounds) -> Vec<Vec<u8>> {
    let ValueBounds { bytes, items, depth } = bounds;
    let bounds = format!("{bytes} {items} {depth}");
    let mut fields = vec![job.source.clone().into_bytes(), job.prelude.clone().into_bytes(), bounds.into_bytes()];
    for (place, unit) in suite.units().enumerate() {
        let stop = stops.get(place).copied().flatten().map_or("-1".to_owned(), |stop| stop.to_string());
        fields.extend([unit.mode().to_vec(), unit.code.clone(), stop.into_bytes()]);
    }
    fields
}

/// How many frames an honest program sends at most.
pub(crate) fn most_frames(suite: &Suite) -> usize {
    let of_site = |(site, times): &(usize, Option<usize>)| {
        let operands = suite.sites.get(site).map_or(1, |site| site.operands.len());
        times.map_or(MOST_UNKNOWN, |times| times * operands)
    };
    let of_unit = |unit: &Unit| 1 + unit.sites.iter().map(of_site).sum::<usize>();
    3 + suite.units().map(of_unit).sum::<usize>()
}

/// A value that was to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Sent(Vec<u8>),
    /// It is beyond this bound: bytes, items or levels.
    Large(String),
    /// An exception came first.
    Missing,
}

/// One comparison that a unit came to.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) site: usize,
    pub(crate) operands: Vec<Operand>,
}

/// How a unit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It came to its end.
    Done,
    /// An assertion that stayed inside is false; the line of the test or of the setup.
    False { in_setup: bool, line: usize },
    /// An exception or a limit: the frame's tag, its words, and whether the program's own code raised it.
    Raised { tag: Vec<u8>, words: String, by_program: bool },
    /// The process ended, or was ended.
    Died,
}

/// What is known of a unit that was reached.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) events: Vec<Event>,
    pub(crate) end: End,
    /// Something came that no honest program sends.
    pub(crate) forged: bool,
}

impl Record {
    fn new() -> Self {
        Self { events: Vec::new(), end: End::Died, forged: false }
    }

    fn add(&mut self, suite: &Suite, site: usize, operand: usize, value: Operand) {
        let Some(count) = suite.sites.get(&site).map(|site| site.operands.len()).filter(|count| operand < *count)
        else {
            self.forged = true;
            return;
        };
        let open = self.events.last_mut().filter(|event| {
            operand > 0
                && event.site == site
                && event.operands[operand - 1] != Operand::Missing
                && event.operands[operand] == Operand::Missing
        });
        let event = match open {
            Some(event) => event,
            None if operand == 0 => {
                self.events.push(Event { site, operands: vec![Operand::Missing; count] });
                self.events.last_mut().expect("it was pushed just now")
            }
            None => {
                self.forged = true;
                return;
            }
        };
        event.operands[operand] = value;
    }

    /// Reports that came before an event.
    pub(crate) fn reports_before(&self, event: usize) -> usize {
        let sent = |event: &Event| event.operands.iter().filter(|operand| **operand != Operand::Missing).count();
        self.events[..event].iter().map(sent).sum()
    }

    /// Whether every site came as often as it must.
    pub(crate) fn is_complete(&self, unit: &Unit) -> bool {
        let is_whole = |event: &Event| !event.operands.contains(&Operand::Missing);
        let came = |site: usize| self.events.iter().filter(|event| event.site == site && is_whole(event)).count();
        unit.sites.iter().all(|(site, times)| times.is_none_or(|times| came(*site) == times))
            && self.events.iter().all(|event| unit.sites.iter().any(|(site, _)| *site == event.site))
    }
}

/// Records of the units that were reached, in their order; the last may have died.
pub(crate) fn read(reply: &Reply, suite: &Suite) -> Vec<Record> {
    let mut units = suite.units();
    let mut records = Vec::new();
    let Some(mut unit) = units.next() else { return records };
    let mut record = Record::new();
    for frame in &reply.frames {
        let fields: Vec<&[u8]> = frame.iter().map(Vec::as_slice).collect();
        let end = match fields.as_slice() {
            [b"site", value, site, operand] => {
                record.add(suite, number(site), number(operand), Operand::Sent(value.to_vec()));
                continue;
            }
            [b"large", bound, site, operand] => {
                record.add(suite, number(site), number(operand), Operand::Large(text(bound)));
                continue;
            }
            [tag @ (b"value" | b"large"), value] => {
                let value = if *tag == b"value" { Operand::Sent(value.to_vec()) } else { Operand::Large(text(value)) };
                match unit.sites.first() {
                    Some((site, _)) if unit.is_value => record.add(suite, *site, 0, value),
                    _ => record.forged = true,
                }
                End::Done
            }
            [b"end"] => End::Done,
            [b"false", file, line] => End::False { in_setup: *file == b"setup", line: number(line) },
            [tag @ (b"error" | b"limit" | b"exit"), words, origin] => {
                End::Raised { tag: tag.to_vec(), words: text(words), by_program: *origin == b"program" }
            }
            _ => continue,
        };
        record.end = end;
        records.push(std::mem::replace(&mut record, Record::new()));
        match units.next() {
            Some(next) => unit = next,
            None => return records,
        }
    }
    records.push(record);
    records
}

fn number(bytes: &[u8]) -> usize {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX)
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
