"""What pytest does with a test function: its marks, its parameters, what runs before and after it. Without pytest."""

import ast
import itertools

MARKS = ("skip", "skipif", "xfail", "usefixtures")  # on what does not just run
HOOKS = (("setup_class", "setup_method"), ("teardown_method", "teardown_class"))


class Skip(Exception):
    """A test that can't be taken over, and why."""


def dotted(node):
    """`a.b.c` as a text; of a call, what is called."""
    node = node.func if isinstance(node, ast.Call) else node
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def hook_call(node, method):
    """The call of what runs before or after each test of a class."""
    owner = node.name if method.name.endswith("_class") else "case"
    required = len(method.args.args) - len(method.args.defaults)
    return f"{owner}.{method.name}({'None' if required > 1 else ''})"


def argument_sets(node, marks, own=0):
    """The arguments of each call that a test stands for: one without any, or those of its parametrizations."""
    if isinstance(node, ast.AsyncFunctionDef):
        raise Skip(f"`{node.name}` is a coroutine, for a plugin of pytest")
    sets, given = [], set()
    for mark in marks:
        name = dotted(mark)
        if name == "pytest.mark.parametrize":
            names, values = parametrized(node, mark)
            given.update(names)
            sets.append([", ".join(f"{name}={value}" for name, value in zip(names, row)) for row in values])
        elif name.split(".")[-1] in MARKS:
            raise Skip(f"`{node.name}` is marked `{name}`")
    if node.decorator_list:
        return [""]  # another decorator, e.g. of unittest.mock, gives the arguments
    arguments = node.args.args[own : len(node.args.args) - len(node.args.defaults)]
    lacking = [argument.arg for argument in arguments if argument.arg not in given]
    if lacking:
        raise Skip(f"`{node.name}` takes the fixture `{lacking[0]}`")
    return [", ".join(part for part in reversed(row) if part) for row in itertools.product(*sets)]


def parametrized(test, decorator):
    """The names and the rows of values of a parametrization."""
    refused = Skip(f"`{test.name}` is parametrized by more than a list of values")
    try:
        names, values = decorator.args
        names = ast.literal_eval(names)
    except ValueError:
        raise refused from None
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    if not isinstance(values, (ast.List, ast.Tuple)):
        raise refused
    rows = []
    for value in values.elts:
        if dotted(value) == "pytest.param":
            if any(keyword.arg == "marks" for keyword in value.keywords):
                raise Skip(f"`{test.name}` has parameters with marks")
            row = value.args
        elif len(names) == 1:
            row = [value]
        else:
            row = getattr(value, "elts", ())
        if len(row) != len(names):
            raise refused
        rows.append([ast.unparse(part) for part in row])
    return names, rows
