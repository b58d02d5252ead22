//! One traced run: what the tracer saw, read from its frames.

use crate::sandbox::{Ending, Reply};

/// One state change, in the order of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The 1-based physical line that its comment follows: the last one of its statement.
    pub line: usize,
    /// The call that made it, by number in the order of the calls.
    pub frame: usize,
    /// The line of that call's `def`; 0 outside functions.
    pub function: usize,
    /// Names and their new values as text; a deleted name has an empty text. Empty for a statement that changed
    /// nothing, which has no number.
    pub changes: Vec<(String, String)>,
}

impl Step {
    /// Reads `line frame function`, then names and values, with a zero character before each.
    fn read(text: &str) -> Option<Self> {
        let mut fields = text.split('\0').map(str::to_owned);
        let place = fields.next()?;
        let mut numbers = place.split(' ').map_while(|number| number.parse().ok());
        let (line, frame, function) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let changes = std::iter::from_fn(|| Some((fields.next()?, fields.next()?))).collect();
        Some(Self { line, frame, function, changes })
    }

    /// E.g. `a=1; b deleted;`.
    pub fn text(&self) -> String {
        let change = |(name, value): &(String, String)| match value.as_str() {
            "" => format!("{name} deleted;"),
            _ => format!("{name}={value};"),
        };
        self.changes.iter().map(change).collect::<Vec<_>>().join(" ")
    }
}

/// Bytes of the shared memory before its steps: how many frames of steps went out, and where the last step ends.
const HEADER: usize = 8;

/// Reads steps, each after its length, up to the first that is none.
fn steps_in(mut bytes: &[u8]) -> impl Iterator<Item = Step> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (step, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Step::read(&String::from_utf8_lossy(step))
    })
}

/// Says that calls were too deep to be shown, and how many where that is known.
fn not_shown(depth: &str, calls: Option<usize>) -> String {
    let count = match calls {
        None => String::new(),
        Some(1) => " (1 call)".to_owned(),
        Some(calls) => format!(" ({} calls)", with_commas(calls)),
    };
    format!("calls deeper than {depth} are not shown{count}")
}

/// A number with a comma between its thousands.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let comma = |at: usize| if at > 0 && (digits.len() - at).is_multiple_of(3) { "," } else { "" };
    digits.char_indices().map(|(at, digit)| format!("{}{digit}", comma(at))).collect()
}

/// A function or a class of the program; lines are 1-based.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first line: the first decorator's.
    pub first: usize,
    /// The line of `def` or `class`.
    pub line: usize,
    /// The last line of its header.
    pub header: usize,
    /// Its last line.
    pub last: usize,
    /// Whether it is a class.
    pub is_class: bool,
    /// Its name.
    pub name: String,
}

impl Block {
    /// Reads `first line header last class|def name`.
    fn read(field: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(field);
        let mut words = text.splitn(6, ' ');
        let mut number = || words.next()?.parse().ok();
        let (first, line, header, last) = (number()?, number()?, number()?, number()?);
        Some(Self { first, line, header, last, is_class: words.next()? == "class", name: words.next()?.to_owned() })
    }
}

/// All that is known of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// State changes.
    pub steps: Vec<Step>,
    /// Functions and classes, in any order.
    pub blocks: Vec<Block>,
    /// Why the trace is not whole, e.g. `stopped after 1000 statements`.
    pub marks: Vec<String>,
    /// What the traced call returned, or the exception; empty when unknown.
    pub got: String,
    /// ok, truncated, timeout, crash or invalid.
    pub status: &'static str,
    /// For `invalid`: whether it is the call that does not compile, the compiler's words, and the line.
    pub invalid: Option<(bool, String, usize)>,
}

impl Run {
    /// What the tracer sent.
    pub(super) fn read(reply: &Reply) -> Self {
        let status = match reply.ending {
            Ending::Done => "ok",
            Ending::Output => "truncated",
            Ending::CpuTime | Ending::WallTime | Ending::Signal(9 | 24) => "timeout",
            Ending::Exit(_) | Ending::Signal(_) | Ending::Malformed => "crash",
        };
        let mut run = Self { status, ..Self::default() };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut sent = 0;
        let mut deep = None;
        for frame in &reply.frames {
            match frame.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
                [b"steps", steps] => {
                    sent += 1;
                    run.steps.extend(steps_in(steps));
                }
                [b"blocks", blocks @ ..] => run.blocks = blocks.iter().filter_map(|block| Block::read(block)).collect(),
                [b"mark", mark] => run.marks.push(text(mark)),
                [b"deep", depth, calls @ ..] => deep = Some(not_shown(&text(depth), calls.first().map(|n| number(n)))),
                [b"got", value] => run.got = text(value),
                [b"truncated"] => run.status = "truncated",
                [b"exit"] => run.status = "crash",
                [tag @ (b"invalid" | b"invalid_call"), words, line] => {
                    run.status = "invalid";
                    run.invalid = Some((*tag == b"invalid_call", text(words), number(line)));
                }
                _ => {}
            }
        }
        run.marks.splice(0..0, deep);
        // The rest is in the memory, unless the program died while these very steps went out as a frame.
        if let Some((header, steps)) = reply.memory.split_at_checked(HEADER)
            && let [before, end] = [&header[..4], &header[4..]].map(|n| n.try_into().map_or(0, u32::from_le_bytes))
            && before == sent
        {
            run.steps.extend(steps_in(&steps[..(end as usize).saturating_sub(HEADER).min(steps.len())]));
        }
        run
    }

    /// The name of the function whose `def` stands at a line; empty outside functions.
    pub fn function(&self, line: usize) -> &str {
        self.blocks.iter().find(|block| block.line == line).map_or("", |block| &block.name)
    }

    /// The steps that changed something, in order: a step's place here is its number.
    pub fn changes(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| !step.changes.is_empty())
    }
}
