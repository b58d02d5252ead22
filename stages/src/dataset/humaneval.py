"""Takes a HumanEval `check(candidate)` apart: the job is (test, entry_point); a frame comes back, (tests, setup, ...).

Where `check` is nothing but asserts, each becomes a test about the entry point itself, and what stands around `check`
becomes the setup. Any other `check` stays whole: the setup defines it and the one test calls it.
"""

import ast


class Rename(ast.NodeTransformer):
    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit_Name(self, node):
        return ast.copy_location(ast.Name(self.new, node.ctx), node) if node.id == self.old else node


def convert(text, entry_point):
    tree = ast.parse(text)
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    others = [node for node in tree.body if node not in checks and not is_metadata(node) and not is_call(node)]
    setup = "\n".join(ast.get_source_segment(text, node) for node in others)
    if len(checks) != 1 or len(checks[0].args.args) != 1:
        raise ValueError("it does not define `check` of one argument")
    candidate = checks[0].args.args[0].arg
    body = [node for node in checks[0].body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if body and all(isinstance(node, ast.Assert) for node in body):
        asserts = [node for node in body if not isinstance(node.test, ast.Constant)]
        tests = ["assert " + ast.unparse(Rename(candidate, entry_point).visit(node.test)) for node in asserts]
        if tests and (candidate == entry_point or not any(candidate in test for test in tests)):
            return setup, tests
    whole = "\n".join(ast.get_source_segment(text, node) for node in [*others, *checks])
    return whole, [f"check({entry_point})"]


def is_metadata(node):
    return isinstance(node, ast.Assign) and [getattr(name, "id", "") for name in node.targets] == ["METADATA"]


def is_call(node):
    """HumanEvalPack calls `check` itself."""
    called = node.value if isinstance(node, ast.Expr) else None
    return isinstance(called, ast.Call) and getattr(called.func, "id", "") == "check"


def run(job, send):
    test, entry_point = (field.decode() for field in job)
    try:
        setup, tests = convert(test, entry_point)
        send(b"tests", setup.encode(), *(test.encode() for test in tests))
    except (SyntaxError, ValueError, RecursionError) as error:
        send(b"bad", str(error).encode("utf-8", "backslashreplace"))
    send(b"done")
