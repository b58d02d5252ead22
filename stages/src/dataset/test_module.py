"""Takes a module of tests apart: the job is (test, reference, class names); unittest, pytest or bare asserts.

Each test is a piece of ordinary statements that can run by itself, after the setup: a class of `unittest.TestCase` is
one test, to be run by a runner of such classes; a function of pytest's, or a method of a class of pytest's, is one test
that defines and calls it. The setup holds what the module imports and the functions and classes that it defines beside
its tests. Other statements at the top of the module stand in front of each test that uses what they bind, so that no
test sees what another has changed. Imports of the program under test are left out: its names are there.

Frames that come back: (tests, setup, ...), then (skipped, reason) for each test that is none; or (bad, field, message).
"""

import ast
import math
import sys

Skip, dotted, hook_call, argument_sets, HOOKS, MARKS = map(
    shared[b"pytest_calls"].get, ("Skip", "dotted", "hook_call", "argument_sets", "HOOKS", "MARKS")
)

PROGRAM = {"solution", "main", "candidate", "program"}  # modules that tests import everything from, as the one they are about
FIXTURES = {"setup_module", "setup_function", "teardown_module", "teardown_function", "setUpModule", "tearDownModule"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


def bound(statement):
    """The names that a statement binds where it stands."""
    names, todo = set(), [statement]
    while todo:
        node = todo.pop()
        if isinstance(node, DEFINITIONS):
            names.add(node.name)
            continue
        if isinstance(node, ast.alias):
            names.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        if not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            todo += ast.iter_child_nodes(node)
    return names


def mentioned(*nodes):
    return {child.id for node in nodes for child in ast.walk(node) if isinstance(child, ast.Name)}


def is_import_of_program(node, names):
    if isinstance(node, ast.If):
        parts = [*node.body, *node.orelse]
        return all(is_import_of_program(part, names) for part in parts)
    if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] in sys.stdlib_module_names:
        return False
    imported = {alias.name for alias in node.names}
    return imported <= names or imported == {"*"} and node.module in PROGRAM


def is_left_out(node, names):
    if isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Constant):
            return True
        called = dotted(node.value)
        return called in ("unittest.main", "pytest.main") or called.startswith("sys.path.")
    if isinstance(node, ast.If) and "__name__" in mentioned(node.test):
        return True
    return is_import_of_program(node, names)


class Lines:
    """The module's text by its nodes, without the lines that are struck."""

    def __init__(self, text):
        self.lines, self.struck = text.split("\n"), set()

    def strike(self, node):
        self.struck.update(range(node.lineno, node.end_lineno + 1))

    def of(self, node):
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
        if first == node.lineno == node.end_lineno:  # several may share a line
            return self.lines[first - 1].encode()[node.col_offset : node.end_col_offset].decode()
        numbers = (number for number in range(first, node.end_lineno + 1) if number not in self.struck)
        lines = [self.lines[number - 1] for number in numbers]
        return "\n".join(lines)


class Module:
    def __init__(self, text, reference):
        tree = ast.parse(text)
        self.lines = Lines(text)
        known = set().union(*map(bound, ast.parse(reference).body)) if reference else set()
        body = [node for node in tree.body if not is_left_out(node, known)]
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        self.unittests = self.test_cases(classes)
        self.marks, self.tests, self.setup, self.state, self.fixtures = {}, [], [], [], {}
        for node in body:
            if node in self.unittests or self.is_pytest(node):
                self.tests.append(node)
            elif isinstance(node, FUNCTIONS) and any(dotted(part).endswith("fixture") for part in node.decorator_list):
                self.fixtures[node.name] = node
            elif isinstance(node, (ast.Import, ast.ImportFrom)) and "pytest" not in bound(node):
                self.setup.append(node)
            elif isinstance(node, DEFINITIONS):
                self.setup.append(node)
            else:
                self.state.append(node)
        self.marks = {node: self.unmarked(node) for node in ast.walk(tree) if hasattr(node, "decorator_list")}
        # A definition that reads such a statement's names belongs to them: it may read them while it is made.
        moved = True
        while moved:
            names = self.state_names()
            moved = [node for node in self.setup if isinstance(node, DEFINITIONS) and mentioned(node) & names]
            self.setup = [node for node in self.setup if node not in moved]
            self.state += moved
        self.state.sort(key=lambda node: node.lineno)

    def state_names(self):
        return set().union(*map(bound, self.state))

    def unmarked(self, node):
        """The marks of pytest at a definition, which are taken away: they mean nothing without pytest."""
        marks = [decorator for decorator in node.decorator_list if dotted(decorator).startswith("pytest.mark.")]
        for mark in marks:
            self.lines.strike(mark)
            node.decorator_list.remove(mark)
        return marks

    @staticmethod
    def test_cases(classes):
        """The classes of `unittest.TestCase` with tests of their own or of a base's."""
        cases, tested = set(), set()
        for node in classes:
            bases = {dotted(base).split(".")[-1] for base in node.bases}
            if bases & ({"TestCase", "IsolatedAsyncioTestCase"} | cases):
                cases.add(node.name)
                own = any(isinstance(part, FUNCTIONS) and part.name.startswith("test") for part in node.body)
                if own or bases & tested:
                    tested.add(node.name)
        return [node for node in classes if node.name in tested]

    @staticmethod
    def is_pytest(node):
        if isinstance(node, FUNCTIONS):
            return node.name.startswith("test")
        methods = [part for part in getattr(node, "body", ()) if isinstance(part, FUNCTIONS)]
        return isinstance(node, ast.ClassDef) and node.name.startswith("Test") and any(map(Module.is_pytest, methods))

    def front(self, *nodes):
        """The statements that must run before these, in order."""
        names, setup = self.state_names(), self.setup
        needed = mentioned(*nodes) | {base.name for node in nodes for base in self.bases(node)}
        chosen = []
        while True:
            # What a function of the setup reads, it reads when it is called.
            called = [node for node in setup if bound(node) & needed]
            reached = (needed | mentioned(*called, *chosen)) & names

            def counts(node):
                binds = bound(node)
                plain = isinstance(node, (ast.Assign, ast.AnnAssign, ast.Import, *DEFINITIONS)) and binds
                touches = mentioned(node) & names
                return binds & reached or not plain and (touches & reached or not touches and not binds)

            # A definition runs when all of the module has, an assert where it stands.
            last = math.inf if isinstance(nodes[0], DEFINITIONS) else nodes[0].lineno
            found = [node for node in self.state if counts(node) and node not in nodes and node.lineno < last]
            if found == chosen:
                return chosen
            chosen, needed = found, needed | reached

    def bases(self, node):
        """The test classes that a test class is built upon."""
        named = {dotted(base) for base in getattr(node, "bases", ())}
        return [base for base in self.unittests if base.name in named and base is not node]

    def piece(self, node, *calls):
        """A test's text: what must run before it, itself, the calls."""
        bases = self.bases(node)
        front = self.front(*bases, node, *(ast.parse(call) for call in calls[:1]))
        return "\n".join([*(self.lines.of(part) for part in [*front, *bases, node]), *calls]) + "\n"

    def pieces(self, only):
        """A test, or the `Skip` that tells why it is none, each."""
        hooks = FIXTURES & set().union(*map(bound, self.setup), *map(bound, self.state))
        automatic = [name for name, node in self.fixtures.items() if "autouse" in ast.unparse(node.decorator_list[0])]
        for node in self.tests:
            if only and node in self.unittests and node.name not in only:
                continue
            try:
                if hooks:
                    raise Skip(f"the module has `{min(hooks)}`, which is not called")
                if node in self.unittests:
                    yield self.piece(node)
                elif automatic:
                    raise Skip(f"the module has the fixture `{automatic[0]}` for every test")
                elif isinstance(node, ast.ClassDef):
                    yield from self.methods(node)
                else:
                    yield from (self.piece(node, f"{node.name}({given})") for given in argument_sets(node, self.marks[node]))
            except Skip as skip:
                yield skip
        if not self.tests:
            asserts = lambda node: any(isinstance(part, ast.Assert) for part in ast.walk(node))
            found = [node for node in self.state if asserts(node)]
            # Asserts are a test each; what they are about may be the work of those before, if they are more than asserts.
            single = all(isinstance(node, ast.Assert) for node in found)
            if single:
                for node in found:
                    self.state.remove(node)
                yield from map(self.piece, found)
            elif found or any(map(asserts, self.setup)):
                yield "\n".join(map(self.lines.of, self.state)) + "\n"

    def methods(self, node):
        """The tests of a class of pytest's."""
        own = {part.name: part for part in node.body if isinstance(part, FUNCTIONS)}
        for mark in self.marks[node]:
            if dotted(mark).split(".")[-1] in (*MARKS, "parametrize"):
                raise Skip(f"`{node.name}` is marked `{dotted(mark)}`")
        if "__init__" in own:
            raise Skip(f"`{node.name}` has an `__init__`, so that pytest leaves it out")
        starts, ends = ([hook_call(node, own[name]) if name in own else "" for name in names] for names in HOOKS)
        ends = list(filter(None, ends))
        for method in own.values():
            if not method.name.startswith("test"):
                continue
            try:
                for given in argument_sets(method, self.marks[method], 1):
                    call = f"case.{method.name}({given})"
                    lines = [*starts[:1], f"case = {node.name}()", *starts[1:], call]
                    if ends:
                        lines[-1:] = ["try:", f"    {call}", "finally:", *(f"    {end}" for end in ends)]
                    yield self.piece(node, "\n".join(filter(None, lines)))
            except Skip as skip:
                yield skip


def take_apart(text, reference="", only=()):
    """(setup, tests, reasons of what is left out) of a module of tests."""
    module = Module(text, reference)
    pieces = list(module.pieces(only))
    tests = [piece for piece in pieces if isinstance(piece, str)]
    lacking = [f"there is no class `{name}` of tests" for name in only if name not in {node.name for node in module.tests}]
    reasons = [str(piece) for piece in pieces if isinstance(piece, Skip)] + lacking
    if not tests and not reasons:
        raise ValueError("holds no test: no `unittest.TestCase`, no function `test…`, no assert")
    setup = "\n".join(map(module.lines.of, module.setup))
    return setup, tests, reasons


def run(job, send):
    text, reference, only = (part.decode() for part in job)
    try:
        ast.parse(reference)
    except SyntaxError:
        reference = ""
    try:
        setup, tests, reasons = take_apart(text, reference, only.split())
    except (SyntaxError, ValueError, RecursionError) as error:
        send(b"bad", str(error).encode("utf-8", "backslashreplace"))
    else:
        send(b"tests", setup.encode())
        for test in tests:
            send(b"test", test.encode())
        for reason in reasons:
            send(b"skipped", reason.encode("utf-8", "backslashreplace"))
    send(b"done")
