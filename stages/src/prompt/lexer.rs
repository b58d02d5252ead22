//! As much of Python's tokenizer as it takes to tell where statements begin: brackets, strings, comments.

/// What a line begins in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A statement begins.
    Statement,
    /// The line continues one, within brackets or after a backslash.
    Continued,
    /// It begins within a string.
    InString,
    /// There is no code on it: it is blank or a comment.
    Nothing,
}

/// A program's lines, one after the other.
#[derive(Default)]
pub(super) struct Lexer {
    /// What is open, outermost first.
    open: Vec<Open>,
    /// Whether the line before ended with a backslash.
    continued: bool,
}

/// Something that ends later.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Bracket,
    String {
        quote: u8,
        triple: bool,
        /// Whether braces in it hold code.
        formatted: bool,
    },
    /// Code in the braces of a formatted string.
    Code,
    /// What follows the colon in there.
    Format,
}

impl Lexer {
    /// Takes the next line, without its end.
    pub(super) fn line(&mut self, line: &str) -> Start {
        let code = line.trim_start_matches([' ', '\t', '\x0c']);
        let start = match self.open.last() {
            Some(Open::String { .. } | Open::Format) => Start::InString,
            Some(Open::Bracket | Open::Code) => Start::Continued,
            None if self.continued => Start::Continued,
            None if code.is_empty() || code.starts_with('#') => Start::Nothing,
            None => Start::Statement,
        };
        self.continued = false;
        let line = line.as_bytes();
        let mut at = 0;
        while at < line.len() {
            at = self.step(line, at);
        }
        // A string in simple quotes ends with its line, unless code in its braces goes on.
        let innermost = self.open.iter().rposition(|open| matches!(open, Open::String { .. }));
        if let Some(string) = innermost
            && !self.continued
            && matches!(self.open[string], Open::String { triple: false, .. })
            && matches!(self.open.last(), Some(Open::String { .. } | Open::Format))
        {
            self.open.truncate(string);
        }
        start
    }

    /// Takes what stands at `at`, and returns where it ends.
    fn step(&mut self, line: &[u8], at: usize) -> usize {
        if line[at] == b'\\' {
            self.continued = at + 1 == line.len();
            return at + 2;
        }
        match self.open.last().copied() {
            Some(Open::String { quote, triple, formatted }) => match line[at] {
                byte if byte == quote && !triple => self.close(at + 1),
                byte if byte == quote && line[at..].starts_with(&[quote; 3]) => self.close(at + 3),
                b'{' if formatted && line.get(at + 1) == Some(&b'{') => at + 2,
                b'{' if formatted => self.push(Open::Code, at + 1),
                _ => at + 1,
            },
            Some(Open::Format) => match line[at] {
                b'{' => self.push(Open::Code, at + 1),
                b'}' => {
                    self.open.pop();
                    self.close(at + 1)
                }
                _ => at + 1,
            },
            open => match line[at] {
                b'#' => line.len(),
                b'"' | b'\'' => self.string(line, at),
                b'(' | b'[' | b'{' => self.push(Open::Bracket, at + 1),
                b'}' if open == Some(Open::Code) => self.close(at + 1),
                b':' if open == Some(Open::Code) => self.push(Open::Format, at + 1),
                b')' | b']' | b'}' if open == Some(Open::Bracket) => self.close(at + 1),
                _ => at + 1,
            },
        }
    }

    fn push(&mut self, open: Open, next: usize) -> usize {
        self.open.push(open);
        next
    }

    fn close(&mut self, next: usize) -> usize {
        self.open.pop();
        next
    }

    fn string(&mut self, line: &[u8], at: usize) -> usize {
        let quote = line[at];
        let triple = line[at..].starts_with(&[quote; 3]);
        let before = &line[..at];
        let letters = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let prefix = &before[at - letters..];
        let formatted = letters <= 2 && prefix.iter().any(|letter| b"fFtT".contains(letter));
        self.push(Open::String { quote, triple, formatted }, at + if triple { 3 } else { 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::Start::{Continued, InString, Nothing, Statement};
    use super::*;

    fn starts(program: &str) -> Vec<Start> {
        let mut lexer = Lexer::default();
        program.lines().map(|line| lexer.line(line)).collect()
    }

    #[test]
    fn brackets_and_backslashes_continue_a_statement() {
        assert_eq!(starts("a = (1,\n# one\n\n2)\nb\n"), [Statement, Continued, Continued, Continued, Statement]);
        assert_eq!(starts("a = \\\n1\nb # \\\nc\n"), [Statement, Continued, Statement, Statement]);
        assert_eq!(starts("\n  # a (\nb = ')'\n"), [Nothing, Nothing, Statement]);
    }

    #[test]
    fn strings_hide_brackets_and_comments() {
        assert_eq!(starts("a = '(#'\nb = \"\\\"(\"\nc = r'\\'[d]\ne\n"), [Statement; 4]);
        assert_eq!(starts("a = '''(\n'' # \"\n' ''')\nb\n"), [Statement, InString, InString, Statement]);
        assert_eq!(starts("a = '\\\n b'\nc = 'open\nd\n"), [Statement, InString, Statement, Statement]);
    }

    #[test]
    fn braces_of_formatted_strings_hold_code() {
        assert_eq!(starts("a = f'{b[\"c\"]:>{d}} {{'\ne = f'{b['c']}'\nf\n"), [Statement; 3]);
        assert_eq!(starts("a = f'''{\n b}\n {c:\n d}'''\ne\n"), [Statement, Continued, InString, InString, Statement]);
        assert_eq!(starts("a = rf\"{b!r:'^9}\" + self_f'{'\nc = F'{(lambda x: {1: x})(2)}'\nd\n"), [Statement; 3]);
    }
}
