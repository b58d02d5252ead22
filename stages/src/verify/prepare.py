"""Sorts tests by how they can be checked; sees tests only, never a candidate.

`assert E == literal` becomes the expression E and the encoded literal, to be compared outside. Any other single
assert becomes an expression that must be true, anything else statements that must not raise. They are compiled here, once
for all candidates.
"""

import ast
import marshal

encode, TooLarge = shared[b"encode"]["encode"], shared[b"encode"]["TooLarge"]
CONSTRUCTORS = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple, "dict": dict, "float": float}


def literal(node):
    """The value of a literal, in which `set([...])` and its like may stand. ValueError if it is something else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords and len(node.args) < 2:
        if node.func.id in CONSTRUCTORS:
            return CONSTRUCTORS[node.func.id](*map(literal, node.args))
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind([literal(item) for item in node.elts])
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {literal(key): literal(value) for key, value in zip(node.keys, node.values)}
    return ast.literal_eval(node)


def source_of(node, text):
    """The expression's own text, in parentheses, since it may go over several lines; `ast.unparse` is slow."""
    lines = text.encode().split(b"\n")[node.lineno - 1 : node.end_lineno]
    lines[-1] = lines[-1][: node.end_col_offset]
    lines[0] = lines[0][node.col_offset :]
    return b"(" + b"\n".join(lines) + b")"


def sort_test(text):
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # as the interpreter reads it
    body = ast.parse(text).body
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return b"exec", text.encode(), b""
    test = body[0].test
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        left, right = test.left, test.comparators[0]
        for expression, constant in ((left, right), (right, left)):
            try:
                return b"value", source_of(expression, text), encode(literal(constant))
            except (ValueError, TypeError, TooLarge):
                pass
    return b"truth", source_of(test, text), b""


def run(job, send):
    """The job is a list of tests; a frame each comes back: (mode, code, compiled, expected) or (bad, message)."""
    for test in job:
        try:
            mode, code, expected = sort_test(test.decode())
            compiled = compile(code.decode(), "<test>", "exec" if mode == b"exec" else "eval", dont_inherit=True)
            send(mode, code, marshal.dumps(compiled), expected)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            send(b"bad", str(error).encode("utf-8", "backslashreplace"))
    send(b"done")


sort_test("assert f([1, 'a'], x=2) == [-1]")  # once in the fork server: what this loads, no child has to
