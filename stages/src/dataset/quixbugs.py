"""Reads one QuixBugs program; the job is (name, buggy, correct, cases), cases being lines `[[arguments], expected]`.

What is expected is written as the correct program gives it (JSON has no tuples, a generator is read into a list), as
long as the two agree. Frames that come back: (problem, instruction, buggy, reference), then (test, text) and
(skipped, reason); or (bad, field, message).
"""

import ast

Program, assert_text, call_text = (shared[b"asserts"][name] for name in ("Program", "assert_text", "call_text"))


def plain(value):
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def parted(source):
    """A program without the text that describes it, and that text."""
    description, lines = "", source.split("\n")
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            description = description or node.value.value.strip()
            lines[node.lineno - 1 : node.end_lineno] = []
    return "\n".join(lines).strip("\n") + "\n", description


def convert(name, buggy, correct, cases, send):
    import json

    try:
        broken, description = parted(buggy)
    except SyntaxError as error:
        raise KeyError("python_programs", f"does not parse: {error}") from None
    try:
        reference, _ = parted(correct)
        program = Program(reference)
    except Exception as error:
        raise KeyError("correct_python_programs", f"can't be loaded: {type(error).__name__}: {error}") from None
    send(b"problem", description.encode(), broken.encode(), reference.encode())
    for number, line in enumerate(cases.split("\n"), 1):
        if not line.strip():
            continue
        try:
            arguments, expected = json.loads(line)
            arguments = arguments if isinstance(arguments, list) else [arguments]
        except (ValueError, TypeError):
            raise KeyError("json_testcases", f"line {number} is not `[[arguments], expected]`") from None
        try:
            expression, value = program.value(call_text(name, arguments))
            # Newton's method stops within the error that the caller allows.
            tolerance = arguments[-1] if name == "sqrt" else 0
            if plain(value) != expected and not tolerance:
                raise ValueError("the correct program and the test case disagree")
            send(b"test", assert_text(expression, float(value) if tolerance else value, tolerance).encode())
        except ValueError as error:
            send(b"skipped", str(error).encode("utf-8", "backslashreplace"))


def run(job, send):
    try:
        convert(*(part.decode() for part in job), send)
    except KeyError as error:
        send(b"bad", *(str(part).encode("utf-8", "backslashreplace") for part in error.args))
    send(b"done")
