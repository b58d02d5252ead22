//! Fenced code blocks in what a model wrote, as CommonMark has them, and without its thoughts.
//!
//! Models are looser than CommonMark, so three things more are read: a fence that opens at the end of a line of text, a
//! fence that closes at the end of a line of code, and an opening fence inside a block that was never closed.

/// A fenced code block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The first word after the opening fence, in lower case; empty if there is none.
    pub language: String,
    /// The lines inside, without the indentation of the fence.
    pub body: String,
    /// Where the opening fence begins, in bytes of the text.
    pub start: usize,
    /// Where the closing fence ends; `None` if the text ends first.
    pub end: Option<usize>,
    /// The closing fence that belongs to it.
    pub fence: String,
}

/// What a text answers: the part after its thoughts, with its code blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Where the answer begins: after the last `</think>`; at the end of a text that never stops thinking.
    pub answer: usize,
    /// The code blocks of the answer, in order.
    pub blocks: Vec<Block>,
}

const THOUGHT: &str = "<think>";
const END_OF_THOUGHT: &str = "</think>";

impl Page {
    /// Reads a text. A fence inside a triple-quoted string of Python does not end the block, unless no block is complete
    /// then: the quotes of a fragment need not match.
    pub(super) fn read(text: &str) -> Self {
        let page = Scan::over(text, true);
        if page.complete().next().is_some() { page } else { Scan::over(text, false) }
    }

    /// The blocks that are closed.
    pub(super) fn complete(&self) -> impl DoubleEndedIterator<Item = &Block> {
        self.blocks.iter().filter(|block| block.end.is_some())
    }
}

/// Where a scan stands.
enum State {
    Text,
    Thought,
    /// In a block, with the quotes of the triple-quoted string that is open.
    Block(Open, Option<&'static str>),
}

/// A block that is being read.
struct Open {
    block: Block,
    opening: Fence,
}

/// A run of three or more backticks or tildes on a line.
#[derive(Clone, Copy)]
struct Fence {
    mark: char,
    count: usize,
    /// Where it begins on its line.
    at: usize,
    /// Characters of indentation that its block has.
    indent: usize,
}

struct Scan {
    page: Page,
    state: State,
    quotes_count: bool,
}

impl Scan {
    fn over(text: &str, quotes_count: bool) -> Page {
        let mut scan = Self { page: Page::default(), state: State::Text, quotes_count };
        let mut offset = 0;
        for line in text.split_inclusive('\n') {
            scan.line(line.trim_end_matches('\n').trim_end_matches('\r'), offset);
            offset += line.len();
        }
        match scan.state {
            State::Block(open, _) => scan.page.blocks.push(open.block),
            State::Thought if scan.page.blocks.is_empty() => scan.page.answer = text.len(),
            _ => {}
        }
        scan.page
    }

    /// Takes a line, or what is left of one, that begins at `offset` of the text.
    fn line(&mut self, line: &str, offset: usize) {
        let closed = match &self.state {
            State::Thought => line.find(END_OF_THOUGHT),
            // The opening tag may stand in the prompt.
            State::Text => line.find(END_OF_THOUGHT),
            // Code may name the tag.
            State::Block(..) if line.trim().starts_with(END_OF_THOUGHT) || line.trim().ends_with(END_OF_THOUGHT) => {
                line.find(END_OF_THOUGHT)
            }
            State::Block(..) => None,
        };
        let opened = matches!(self.state, State::Text) && line.trim_start().starts_with(THOUGHT);
        if let Some(at) = closed.filter(|_| !opened) {
            let rest = at + END_OF_THOUGHT.len();
            self.page = Page { answer: offset + rest, blocks: Vec::new() };
            self.state = State::Text;
            return self.line(&line[rest..], offset + rest);
        }
        match std::mem::replace(&mut self.state, State::Thought) {
            State::Thought => {}
            State::Text if opened => {
                let rest = line.len() - line.trim_start().len() + THOUGHT.len();
                self.line(&line[rest..], offset + rest);
            }
            State::Text => self.state = opening(line, offset).map_or(State::Text, |open| State::Block(open, None)),
            State::Block(open, quotes) => self.state = self.inside(open, quotes, line, offset),
        }
    }

    fn inside(&mut self, mut open: Open, quotes: Option<&'static str>, line: &str, offset: usize) -> State {
        let opening_fence = open.opening;
        let fence = Fence::find(line).filter(|fence| {
            fence.mark == opening_fence.mark
                && fence.count >= opening_fence.count
                && !(self.quotes_count && quotes.is_some())
        });
        if let Some(fence) = fence {
            let (before, after) = (&line[..fence.at], line[fence.at + fence.count..].trim());
            let begins = before.trim().is_empty() && fence.at < opening_fence.indent + 4;
            let glued = !before.trim().is_empty() && fence.mark == '`' && after.is_empty();
            if begins && is_word(after) && !after.is_empty() {
                // The block before was never closed.
                return opening_at(line, offset, fence).map_or(State::Text, |open| State::Block(open, None));
            }
            if begins || glued {
                if glued {
                    open.push(before);
                }
                open.block.end = Some(offset + fence.at + fence.count);
                self.close(open.block);
                return State::Text;
            }
        }
        open.push(line);
        let quotes = if open.block.is_python() { open_quotes(line, quotes) } else { None };
        State::Block(open, quotes)
    }

    /// Keeps a block; of a Markdown document, the blocks in it.
    fn close(&mut self, block: Block) {
        if matches!(block.language.as_str(), "markdown" | "md") {
            let inner = Page::read(&block.body).blocks.into_iter();
            let whole = |inner: Block| Block { start: block.start, end: inner.end.and(block.end), ..inner };
            self.page.blocks.extend(inner.map(whole));
        } else {
            self.page.blocks.push(block);
        }
    }
}

impl Open {
    /// Adds a line without the indentation of the fence.
    fn push(&mut self, line: &str) {
        let is_indentation = |&(at, letter): &(usize, char)| at < self.opening.indent && matches!(letter, ' ' | '\t');
        let indent = line.char_indices().take_while(is_indentation).count();
        self.block.body.push_str(&line[indent..]);
        self.block.body.push('\n');
    }
}

impl Block {
    /// Whether it may hold a Python program, by its language.
    pub(super) fn is_python(&self) -> bool {
        self.language.is_empty() || self.says_python()
    }

    /// Whether it says that it holds one.
    pub(super) fn says_python(&self) -> bool {
        self.language.starts_with("python") || matches!(self.language.as_str(), "py" | "py3" | "ipython" | "ipython3")
    }
}

impl Fence {
    /// The first fence on a line, unless the line has another one after it, as code between backticks has.
    fn find(line: &str) -> Option<Self> {
        let at = line.find("```").into_iter().chain(line.find("~~~")).min()?;
        let mark = line[at..].chars().next()?;
        let count = line[at..].len() - line[at..].trim_start_matches(mark).len();
        let before = &line[..at];
        let indent = if before.trim().is_empty() || is_list_marker(before.trim()) {
            at
        } else {
            before.len() - before.trim_start().len()
        };
        let rest = &line[at + count..];
        (!rest.contains("```") && (mark != '`' || !rest.contains('`'))).then_some(Self { mark, count, at, indent })
    }
}

/// The block that a line of text opens.
fn opening(line: &str, offset: usize) -> Option<Open> {
    let fence = Fence::find(line)?;
    let (before, after) = (line[..fence.at].trim(), line[fence.at + fence.count..].trim());
    let begins = before.is_empty() || is_list_marker(before);
    // In text, only what can't be meant otherwise opens a block.
    (begins || (fence.mark == '`' && is_word(after))).then(|| opening_at(line, offset, fence)).flatten()
}

fn opening_at(line: &str, offset: usize, fence: Fence) -> Option<Open> {
    let info = line.get(fence.at + fence.count..)?;
    let language = info.split_whitespace().next().unwrap_or_default().trim_matches(['{', '}', '.']).to_lowercase();
    let closing = fence.mark.to_string().repeat(fence.count);
    let block = Block { language, body: String::new(), start: offset + fence.at, end: None, fence: closing };
    Some(Open { block, opening: fence })
}

/// Whether this can be the name of a language, or nothing.
fn is_word(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '+' | '#' | '-' | '.'))
}

/// `-`, `*`, `+`, `1.` and `1)`.
fn is_list_marker(text: &str) -> bool {
    let number = text.strip_suffix(['.', ')']);
    matches!(text, "-" | "*" | "+")
        || number.is_some_and(|number| !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit()))
}

/// The quotes of the triple-quoted string that is open after a line.
fn open_quotes(line: &str, mut open: Option<&'static str>) -> Option<&'static str> {
    let mut rest = line;
    loop {
        let found = match open {
            Some(quotes) => rest.find(quotes).map(|at| (at, quotes)),
            None => ["\"\"\"", "'''"].iter().filter_map(|quotes| rest.find(quotes).map(|at| (at, *quotes))).min(),
        };
        let Some((at, quotes)) = found else { return open };
        open = if open.is_some() { None } else { Some(quotes) };
        rest = &rest[at + quotes.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks' languages and bodies; an open one ends with `...`.
    fn blocks(text: &str) -> Vec<(String, String)> {
        let shown = |block: Block| (block.language, block.body + if block.end.is_some() { "" } else { "..." });
        Page::read(text).blocks.into_iter().map(shown).collect()
    }

    fn pairs(blocks: &[(&str, &str)]) -> Vec<(String, String)> {
        blocks.iter().map(|(language, body)| ((*language).to_owned(), (*body).to_owned())).collect()
    }

    #[test]
    fn blocks_have_the_first_word_of_the_opening_fence_as_their_language() {
        for (text, language) in [
            ("```python\nx\n```", "python"),
            ("```Py\nx\n```\n", "py"),
            ("``` python title=\"a b\"\nx\n```", "python"),
            ("```{.python}\nx\n```", "python"),
            ("```\nx\n```", ""),
            ("~~~python\nx\n~~~", "python"),
        ] {
            assert_eq!(blocks(text), pairs(&[(language, "x\n")]), "{text}");
        }
    }

    #[test]
    fn code_between_backticks_on_one_line_is_no_block() {
        for text in ["```x = 1```", "The line ```x = 1``` is wrong.", "``x`` and `y`", "```x``` and ```y```"] {
            assert_eq!(blocks(text), [], "{text}");
        }
    }

    #[test]
    fn a_fence_closes_only_by_its_own_mark_and_at_least_as_long() {
        assert_eq!(blocks("~~~\n```\nx\n```\n~~~"), pairs(&[("", "```\nx\n```\n")]));
        assert_eq!(blocks("````python\n\"\"\"\n```\n\"\"\"\n````\n"), pairs(&[("python", "\"\"\"\n```\n\"\"\"\n")]));
        assert_eq!(blocks("```\nx\n`````"), pairs(&[("", "x\n")]));
    }

    #[test]
    fn the_indentation_of_the_fence_is_taken_off_its_lines() {
        let text = "1. First\n   ```python\n   def f():\n       pass\n\n   ```\n2. ```\n   x\n   ```";
        assert_eq!(blocks(text), pairs(&[("python", "def f():\n    pass\n\n"), ("", "x\n")]));
        assert_eq!(blocks("\t```py\n\tif x:\n\t\ty\n\t```"), pairs(&[("py", "if x:\n\ty\n")]));
    }

    #[test]
    fn a_fence_in_a_docstring_does_not_end_the_program() {
        let program = "def f(x):\n  \"\"\"Doubles.\n\n  ```python\n  f(1)\n  ```\n  \"\"\"\n  return x\n";
        assert_eq!(blocks(&format!("```python\n{program}```")), pairs(&[("python", program)]));
        let module = "\"\"\"\n```\nf(1)\n```\n\"\"\"\nx = 1\n";
        assert_eq!(blocks(&format!("```python\n{module}```\n")), pairs(&[("python", module)]));
        // The quotes of a fragment that do not match.
        let text = "```python\n\"\"\"Doubles.\n```\nbecomes\n```python\nx = 1\n```\n";
        assert_eq!(blocks(text), pairs(&[("python", "\"\"\"Doubles.\n"), ("python", "x = 1\n")]));
    }

    #[test]
    fn a_block_that_is_never_closed_is_open_or_ends_at_the_next_opening_fence() {
        assert_eq!(blocks("```python\nx = 1\ny ="), pairs(&[("python", "x = 1\ny =\n...")]));
        assert_eq!(blocks("```python\nx\n```python\ny\n```"), pairs(&[("python", "y\n")]));
        assert_eq!(blocks("```"), pairs(&[("", "...")]));
    }

    #[test]
    fn fences_glued_to_text_or_code_count() {
        assert_eq!(blocks("The fix:```python\nx = 1```\nDone."), pairs(&[("python", "x = 1\n")]));
        assert_eq!(blocks("```python\nx = 1\n``` That is it."), pairs(&[("python", "x = 1\n")]));
    }

    #[test]
    fn the_blocks_of_a_markdown_document_are_blocks() {
        assert_eq!(blocks("````markdown\nFix:\n```python\nx\n```\n````"), pairs(&[("python", "x\n")]));
    }

    #[test]
    fn lines_may_end_as_on_windows() {
        assert_eq!(blocks("why\r\n```python\r\nx = 1\r\ny = 2\r\n```\r\n"), pairs(&[("python", "x = 1\ny = 2\n")]));
    }

    #[test]
    fn thoughts_are_no_part_of_the_answer() {
        let answer = "```python\nx = 2\n```";
        for thought in [
            "<think>\n```python\nx = 1\n```\n</think>\n",
            "<think>Is it ```python\nx = 1\n</think>\n",
            // The opening tag stands in the prompt.
            "```python\nx = 1\n```\nso be it.</think>",
            "```python\nx = 1\n</think>\n",
        ] {
            assert_eq!(blocks(&format!("{thought}{answer}")), pairs(&[("python", "x = 2\n")]), "{thought}");
        }
        assert_eq!(blocks("<think>\n```python\nx = 1\n```\nbut then"), []);
        assert_eq!(blocks("```\na = s.split('</think>')[0]\n```"), pairs(&[("", "a = s.split('</think>')[0]\n")]));
    }

    #[test]
    fn the_answer_begins_after_the_last_thought() {
        assert_eq!(Page::read("<think>a</think> b").answer, "<think>a</think>".len());
        assert_eq!(Page::read("a</think>b</think>c").answer, "a</think>b</think>".len());
        assert_eq!(Page::read("<think>a").answer, "<think>a".len());
        assert_eq!(Page::read("a <think> b").answer, 0);
    }
}
