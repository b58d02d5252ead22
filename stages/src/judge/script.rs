//! Tests of whole programs: what goes to standard input, and what must come out.

use serde::Deserialize;

use super::verdict::Outcome;

/// Characters of a word that is shown.
const SHOWN: usize = 40;

/// A test `{"stdin": "3\n", "stdout": "6\n"}`, as LiveCodeBench, APPS and CodeContests have them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// What the program reads.
    pub(crate) stdin: String,
    /// What it must print: the same words, however they are spaced.
    pub(crate) stdout: String,
    /// How far a number may be off, absolutely or in relation to the expected one; 0: not at all.
    #[serde(default)]
    pub(crate) tolerance: f64,
}

impl Script {
    /// `None` if a test is no such object: then it is Python.
    pub(crate) fn parse(test: &str) -> Option<Self> {
        test.trim_start().starts_with('{').then(|| serde_json::from_str(test).ok()).flatten()
    }

    /// Compares what a program printed with what it should have: word by word.
    pub(crate) fn judge(&self, printed: &[u8]) -> (Outcome, String) {
        let printed = String::from_utf8_lossy(printed);
        let mut words = printed.split_whitespace();
        for (place, expected) in self.stdout.split_whitespace().enumerate() {
            let Some(word) = words.next() else {
                return (
                    Outcome::Fail,
                    format!("the output ends where word {} should be `{}`", place + 1, cut(expected)),
                );
            };
            if word != expected && !self.is_near(word, expected) {
                let detail = format!("word {} of the output is `{}`, not `{}`", place + 1, cut(word), cut(expected));
                return (Outcome::Fail, detail);
            }
        }
        match words.next() {
            None => (Outcome::Pass, String::new()),
            Some(word) => (Outcome::Fail, format!("the output goes on with `{}` where it should end", cut(word))),
        }
    }

    fn is_near(&self, word: &str, expected: &str) -> bool {
        let (Ok(word), Ok(expected)) = (word.parse::<f64>(), expected.parse::<f64>()) else { return false };
        self.tolerance > 0.0 && (word - expected).abs() <= self.tolerance * expected.abs().max(1.0)
    }
}

fn cut(word: &str) -> String {
    if word.chars().count() <= SHOWN {
        word.to_owned()
    } else {
        word.chars().take(SHOWN - 3).collect::<String>() + "..."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(stdout: &str, tolerance: f64) -> Script {
        Script { stdin: String::new(), stdout: stdout.to_owned(), tolerance }
    }

    #[test]
    fn only_an_object_with_input_and_output_is_a_script() {
        let parsed = Script::parse(r#" {"stdin": "1 2\n", "stdout": "3\n"}"#);
        assert_eq!(parsed, Some(Script { stdin: "1 2\n".to_owned(), ..script("3\n", 0.0) }));
        assert_eq!(Script::parse("{'stdin': 1}"), None);
        assert_eq!(Script::parse("assert f(1) == {}"), None);
        assert_eq!(Script::parse(r#"{"stdin": "", "stdout": "", "tolerence": 1}"#), None);
    }

    #[test]
    fn words_are_compared_and_spaces_are_not() {
        assert_eq!(script("1 2\n3\n", 0.0).judge(b"1\n2  3").0, Outcome::Pass);
        let wrong = |printed: &[u8]| script("1 2", 0.0).judge(printed).1;
        assert_eq!(wrong(b"1 3"), "word 2 of the output is `3`, not `2`");
        assert_eq!(wrong(b"1"), "the output ends where word 2 should be `2`");
        assert_eq!(wrong(b"1 2 4"), "the output goes on with `4` where it should end");
        assert_eq!(wrong(b"1 2.0"), "word 2 of the output is `2.0`, not `2`");
    }

    #[test]
    fn numbers_may_differ_by_the_tolerance() {
        let near = |printed: &[u8], tolerance| script("1000.0", tolerance).judge(printed).0 == Outcome::Pass;
        assert!(near(b"1000.5", 1e-3) && !near(b"1001.5", 1e-3) && !near(b"1000.5", 0.0) && !near(b"nan", 1e-3));
    }
}
