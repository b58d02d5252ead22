"""Reads one QuixBugs program; the job is (name, buggy, correct, cases, module, node).

Cases are lines `[[arguments], expected]`. What is expected is written as the correct program gives it (JSON has no
tuples, a generator is read into a list), as long as the two agree. A program on graphs has a module of tests for pytest
instead, and the source of the class `Node` that the module imports: the setup.

Frames that come back: (problem, instruction, buggy, reference), maybe (setup, text), then (test, text) and
(skipped, reason); or (bad, field, message).
"""

import ast

Program, assert_text, call_text = (shared[b"asserts"][name] for name in ("Program", "assert_text", "call_text"))
take_apart = shared[b"test_module"]["take_apart"]


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


def convert_module(module, reference, node, send):
    try:
        node, _ = parted(node) if "Node" in module else ("", "")
        setup, tests, reasons = take_apart(module, reference + node)
    except (SyntaxError, ValueError) as error:
        raise KeyError("python_testcases", str(error)) from None
    send(b"setup", f"{node}{setup}".strip("\n").encode())
    for test in tests:
        send(b"test", test.encode())
    for reason in reasons:
        send(b"skipped", reason.encode("utf-8", "backslashreplace"))


def convert(name, buggy, correct, cases, module, node, send):
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
    if module:
        return convert_module(module, reference, node, send)
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
