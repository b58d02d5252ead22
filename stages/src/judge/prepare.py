"""Prepares problems' tests: splits them (`split.py`) and compiles both halves. Sees no program under test.

The job is a list of problems: each is the number of its tests, its setup, its reference solution (may be empty), the numbers of the
sites that are forced inside, then the tests. For each problem come back: for the setup and each test a frame `unit` with
mode, code, how often each site must come, and why something is judged inside; a frame `site` for each comparison outside;
and `problem`. In a unit's place stands `bad` with the parser's words where it is no Python.
"""

import ast
import marshal

encode, TooLarge = shared[b"encode"]["encode"], shared[b"encode"]["TooLarge"]
Split, Scope = shared[b"split"]["Split"], shared[b"closed"]["Scope"]
names_in, names_bound_by = shared[b"closed"]["names_in"], shared[b"closed"]["names_bound_by"]
WRONG = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)


class Everything:
    """All sites."""

    def __contains__(self, number):
        return True


def compiled(node, mode="exec", name="<test>"):
    return compile(ast.fix_missing_locations(node), name, mode, dont_inherit=True)


def statements_for(expression, scope):
    """The statements that bind the closed names of an expression, outermost scope first."""
    wanted, taken = names_in(expression), []
    while scope:
        before = -1
        chosen = {}
        while before != len(wanted):
            before = len(wanted)
            for statement, name in scope.statements:
                bound = {name} if name else {part for alias in statement.names for part in names_bound_by(alias)}
                if bound & wanted and id(statement) not in chosen:
                    chosen[id(statement)] = statement
                    wanted |= names_in(statement)
        taken = [statement for statement, _ in scope.statements if id(statement) in chosen] + taken
        scope = scope.parent
    return taken


def outside(site, expression):
    """A module that binds what the expression needs and leaves its value in `__result__`."""
    result = ast.Assign([ast.Name("__result__", ast.Store())], expression, lineno=1)
    return compiled(ast.Module([*statements_for(expression, site.scope), result], []), name="<comparison>")


def value_of(site, expression):
    """A closed expression's encoded value; None if it raises, or can only be compared by Python."""
    space = {}
    try:
        exec(outside(site, expression), space)
        data = encode(space["__result__"])
    except Exception:
        return None
    return data


def is_operand(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__H__"


def kind_of(site):
    """What the supervisor can decide by itself: how, and with which value."""
    code = site.code
    negated = isinstance(code, ast.UnaryOp) and isinstance(code.op, ast.Not)
    if is_operand(code.operand if negated else code):
        return b"false" if negated else b"true", b""
    if isinstance(code, ast.Compare) and len(code.ops) == 1 and len(site.operands) == 1:
        left, operator, right = code.left, code.ops[0], code.comparators[0]
        other = right if is_operand(left) else left if is_operand(right) else None
        kinds = {ast.Eq: b"equal", ast.NotEq: b"unequal", ast.Is: b"is", ast.IsNot: b"is not"}
        if other is not None and type(operator) in kinds:
            value = value_of(site, other)
            if value is not None:
                return kinds[type(operator)], value
    return b"expression", b""


def inside(unit, name):
    """The statements of a unit for the program's process: (mode, marshalled code)."""
    if len(unit.body) == 1 and len(unit.sites) == 1:
        call = getattr(unit.body[0], "value", None)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "__h__":
            return b"value", marshal.dumps(compiled(ast.Expression(call.args[2]), "eval", name))
    return b"exec", marshal.dumps(compiled(ast.Module(unit.body, []), name=name))


def parse(text):
    return ast.parse(text.decode().replace("\r\n", "\n").replace("\r", "\n"))


def prepare(setup, tests, reference, forced, send):
    trees, bad = [], False
    for place, text in enumerate((setup, *tests), 1):
        try:
            trees.append(parse(text))
            compile(trees[-1], "<test>", "exec", dont_inherit=True)
        except WRONG as error:
            bad = True
            send(b"bad", b"%d" % place, str(error).encode("utf-8", "backslashreplace"))
            break
    if bad:
        return
    try:
        split = Split(trees[0], trees[1:], reference.decode().replace("\r\n", "\n").replace("\r", "\n"), forced)
    except (SyntaxError, ValueError):  # a reference that is no Python decides nothing
        trees = [parse(text) for text in (setup, *tests)]
        split = Split(trees[0], trees[1:], None, forced)
    for unit in split.units:
        mode, code = inside(unit, "<test>" if unit.number else "<setup>")
        times = ",".join(f"{number}:{'*' if times is None else times}" for number, times in unit.sites.items())
        send(b"unit", mode, code, times.encode(), "; ".join(unit.reasons).encode())
    for site in split.sites:
        kind, value = kind_of(site)
        operands = [ast.unparse(operand).encode("utf-8", "backslashreplace") for operand in site.operands]
        text = site.text.encode("utf-8", "backslashreplace")
        send(b"site", b"%d" % site.number, kind, value, marshal.dumps(outside(site, site.code)), text, *operands)


def run(job, send):
    fields = iter(job)
    for count in fields:
        setup, reference, forced = next(fields), next(fields), next(fields)
        tests = [next(fields) for _ in range(int(count))]
        prepare(setup, tests, reference, Everything() if forced == b"all" else frozenset(map(int, forced.split())), send)
        send(b"problem")
    send(b"done")


# Once in the fork server: what this loads, no child has to.
run([b"1", b"", b"def f(x):\n    return x", b"", b"assert f([1, 'a'], x=2) == [-1]"], lambda *frame: None)
