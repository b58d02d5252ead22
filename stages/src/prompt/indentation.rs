//! How deep each line of a Python program stands, by the rules of Python's tokenizer.
//!
//! A program that can't be tokenized has levels too, for as long as its brackets and quotes match.

use super::lexer::{Lexer, Start};

/// How a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Indent {
    /// Its level: that of the block it is in, for the first line of a statement. What only looks indented (a continued
    /// line, a comment) has the level that its width comes to.
    pub level: usize,
    /// Bytes of white space that the level stands for. What follows is shown as it is: in a string, white space is text.
    pub bytes: usize,
}

/// What stands for a level within a string, in spaces; and for one of a program that has no blocks.
const SPACES: usize = 4;

/// The indentation of each line of a program, in the order of [`str::lines`].
pub(super) fn indents(program: &str) -> Vec<Indent> {
    let mut lexer = Lexer::default();
    let mut blocks = Blocks::default();
    let mut indents: Vec<Indent> = Vec::new();
    // Comments and blank lines, whose level is that of the next statement, if they are as wide.
    let mut waiting: Vec<(usize, usize)> = Vec::new();
    for (number, line) in program.lines().enumerate() {
        let bytes = line.len() - line.trim_start_matches([' ', '\t', '\x0c']).len();
        let width = width(&line[..bytes]);
        let start = lexer.line(line);
        let indent = match start {
            Start::InString => {
                let spaces = line.len() - line.trim_start_matches(' ').len();
                Indent { level: spaces / SPACES, bytes: spaces / SPACES * SPACES }
            }
            Start::Statement => {
                let level = blocks.enter(width);
                for (number, _) in waiting.drain(..).filter(|(_, waiting)| *waiting == width) {
                    indents[number].level = level;
                }
                Indent { level, bytes }
            }
            Start::Continued => Indent { level: blocks.level_of(width), bytes },
            Start::Nothing => {
                waiting.push((number, width));
                Indent { level: blocks.level_of(width), bytes }
            }
        };
        indents.push(indent);
    }
    indents
}

/// Columns of white space as Python counts them: a tab goes on to the next multiple of eight, a form feed starts again.
fn width(space: &str) -> usize {
    space.chars().fold(0, |width, letter| match letter {
        '\t' => (width / 8 + 1) * 8,
        '\x0c' => 0,
        _ => width + 1,
    })
}

/// The blocks that are open, by the width of their lines; the outermost has width 0.
#[derive(Default)]
struct Blocks {
    widths: Vec<usize>,
    /// How wide the first block of the program is.
    step: Option<usize>,
}

impl Blocks {
    /// The level of a statement; opens and closes blocks.
    fn enter(&mut self, width: usize) -> usize {
        while self.widths.last().is_some_and(|open| *open > width) {
            self.widths.pop();
        }
        let outer = self.widths.last().copied().unwrap_or(0);
        if width > outer {
            self.step.get_or_insert(width - outer);
            self.widths.push(width);
        }
        self.widths.len()
    }

    /// The level that a width comes to: the widest open block that is not wider, and what is beyond it in steps.
    fn level_of(&self, width: usize) -> usize {
        let within = self.widths.iter().take_while(|open| **open <= width).count();
        let beyond = width - within.checked_sub(1).map_or(0, |last| self.widths[last]);
        within + beyond.div_ceil(self.step.unwrap_or(SPACES))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn levels(program: &str) -> Vec<usize> {
        indents(program).iter().map(|indent| indent.level).collect()
    }

    #[test]
    fn a_level_is_a_block_whatever_it_is_indented_by() {
        for indent in [" ", "  ", "    ", "\t", "       ", "\t\t"] {
            let program =
                "def f(x):\n>if x:\n>>while x:\n>>>x -= 1\n>>else:\n>>>pass\n>return x\n".replace('>', indent);
            assert_eq!(levels(&program), [0, 1, 2, 3, 2, 3, 1], "{indent:?}");
        }
    }

    #[test]
    fn blocks_may_differ_in_width() {
        assert_eq!(levels("if a:\n      b\n      if c:\n        d\nelse:\n  e\n"), [0, 1, 1, 2, 0, 1]);
        // A tab goes to column 8, as Python has it.
        assert_eq!(levels("if a:\n        if b:\n\t\tc\n\td\n"), [0, 1, 2, 1]);
    }

    #[test]
    fn continued_lines_and_comments_have_the_level_of_their_width() {
        assert_eq!(
            levels("def f(a,\n      b):\n  x = [1,\n    2,\n  ]\n  # y\n  return \\\n    x\n"),
            [0, 2, 1, 2, 1, 1, 1, 2]
        );
        // Comments before the first line of a block stand in it.
        assert_eq!(levels("def f():\n\t# why\n\n\tx\n# end\ny\n"), [0, 1, 0, 1, 0, 0]);
    }

    #[test]
    fn four_spaces_are_a_level_in_what_only_looks_indented() {
        let program = "def f(a,\n          b):\n    x = g(a,\n          b)\n        # deep\n    return (x\n  )\n";
        let by_bytes = |line: &str| (line.len() - line.trim_start().len()).div_ceil(4);
        assert_eq!(levels(program), program.lines().map(by_bytes).collect::<Vec<_>>());
    }

    #[test]
    fn white_space_in_a_string_is_text() {
        let program = "def f():\n  \"\"\"One\n      two\n\n \tthree\n  \"\"\"\n  return 1\n";
        let shown = |(line, indent): (&str, &Indent)| (indent.level, line[indent.bytes..].to_owned());
        let lines: Vec<(usize, String)> = program.lines().zip(&indents(program)).map(shown).collect();
        let expected = [
            (0, "def f():"),
            (1, "\"\"\"One"),
            (1, "  two"),
            (0, ""),
            (0, " \tthree"),
            (0, "  \"\"\""),
            (1, "return 1"),
        ];
        assert_eq!(lines, expected.map(|(level, text)| (level, text.to_owned())));
    }

    #[test]
    fn programs_that_are_none_have_levels() {
        assert_eq!(levels("if a:\n    b\n  c\nd = (\n  e\n"), [0, 1, 1, 0, 1]);
        assert_eq!(levels(""), [] as [usize; 0]);
    }

    /// The program written anew with four spaces for each level.
    fn rewritten(program: &str) -> String {
        let line = |(line, indent): (&str, &Indent)| " ".repeat(4 * indent.level) + &line[indent.bytes..] + "\n";
        program.lines().zip(&indents(program)).map(line).collect()
    }

    const COMPARE: &str = "
import ast, json, sys
for name, program, again in json.load(sys.stdin):
    try:
        same = ast.dump(ast.parse(program)) == ast.dump(ast.parse(again))
    except SyntaxError as error:
        same = f'{error}: {error.text}'
    if same is not True:
        print(name, same)
";

    /// The programs that mean something else once they are rewritten, as Python parses them.
    fn changed(programs: &[(String, String)]) -> String {
        let rows: Vec<_> = programs.iter().map(|(name, program)| (name, program, rewritten(program))).collect();
        let mut python = crate::python::Python::find().expect("python3").command();
        let python = python.args(["-c", COMPARE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut python = python.expect("it starts");
        serde_json::to_writer(python.stdin.take().expect("its input"), &rows).expect("programs");
        let output = python.wait_with_output().expect("it ends");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    }

    #[test]
    fn odd_programs_mean_the_same_with_four_spaces_a_level() {
        let odd = [
            "class A:\n def f(self):\n  return '''a\n   b\n '''\n\n # end\n x = 1\n",
            "def f(x):\n\tif x:\n\t\treturn [x,\n  x]\n\telse:\n\t        return \\\n 0\n",
            "if 1:\n        x = {\n    'a': '''\n\t''',\n        }\n        if x: y = 2\n",
            "def f(a):\n  s = \"\"\"\\\n{\n  \"\"\" % ()\n  return (s +\n'}' ) # \"\"\"\n",
            "def f(d):\n   a = f'{d[\"x\"]:>{4}}' + rb'\\''.decode()\n   b = f'''{\n d\n   } {{\n  '''\n   return a, b\n",
            "async def f():\n    async with a as b, \\\n      c:\n            pass\n    x = 'a\\\n  b'\n",
            "try:\n  x = 1; y = (\n2)\nexcept E: pass\nelse :\n     z = '#'  # '''\n     w = '''#\n     '''\n",
            "\x0cdef f():\n \x0c  pass\n",
            "def f():\r\n  '''a\r\n     b'''\r\n  return 1\r\n",
            "@d(\n  1)\nclass B(\n    object):\n\t'''x'''\n\n\tdef g(self): return lambda: {\n\t1: 2}\n",
            "def f():\n  if a:\n    b\n  # c\n    # d\n# e\n  return\n",
            "match x:\n  case [1,\n    2]:\n     y\n  case _:\n     z\n",
        ];
        let programs: Vec<(String, String)> =
            (0..).zip(odd).map(|(number, program): (u32, _)| (number.to_string(), program.to_owned())).collect();
        assert_eq!(changed(&programs), "");
    }

    #[test]
    fn pythons_own_modules_mean_the_same_with_four_spaces_a_level() {
        let python = crate::python::Python::find().expect("python3");
        let library = python.readable.iter().find(|folder| folder.join("textwrap.py").is_file()).expect("its library");
        let files = fs_err::read_dir(library).expect("its modules").map(|entry| entry.expect("an entry").path());
        let files = files.filter(|file| file.extension().is_some_and(|ending| ending == "py"));
        let programs: Vec<(String, String)> = files
            .filter_map(|file| Some((file.display().to_string(), fs_err::read_to_string(&file).ok()?)))
            .filter(|(_, program)| program.len() < 60_000)
            .collect();
        assert!(programs.len() > 50, "{} modules", programs.len());
        assert_eq!(changed(&programs), "");
    }

    #[test]
    fn the_programs_of_mbpp_mean_the_same_with_four_spaces_a_level() {
        let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mbpp.jsonl");
        let Ok(text) = fs_err::read_to_string(path) else { return };
        let program = |line: &str| {
            let problem: serde_json::Value = serde_json::from_str(line).expect("JSON");
            (problem["task_id"].to_string(), problem["code"].as_str().expect("a program").replace("\r\n", "\n"))
        };
        let programs: Vec<(String, String)> = text.lines().map(program).collect();
        assert_eq!(programs.len(), 974);
        assert_eq!(changed(&programs), "");
    }
}
