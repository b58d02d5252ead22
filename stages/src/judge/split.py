"""Splits the comparisons of a problem's tests: what stays in the program's process, and what is compared outside.

Each assertion that compares something of the program's with something closed (`closed.py`) becomes a *site*: inside
there is only `__h__(site, operand, value)` for each operand, which sends the value; the comparison with these values in
their places is evaluated outside. What compares by the program's own classes, by identity or by control flow stays as
it is. The test, its setup and the reference decide which it is, never the program under test.
"""

import ast
import symtable

BUILTINS, Closed, Scope, assigned, top_level = (
    shared[b"closed"][key] for key in ("BUILTINS", "Closed", "Scope", "assigned", "top_level")
)
Inside, Lift, last_name = (shared[b"lift"][key] for key in ("Inside", "Lift", "last_name"))
Unroll, collect, is_unittest, unittest_test = (
    shared[b"rewrite"][key] for key in ("Unroll", "collect", "is_unittest", "unittest_test")
)
NARROW = frozenset(
    "ValueError TypeError KeyError IndexError ZeroDivisionError StopIteration StopAsyncIteration AttributeError RuntimeError "
    "NotImplementedError OSError IOError FileNotFoundError PermissionError LookupError ArithmeticError OverflowError "
    "RecursionError NameError EOFError UnicodeDecodeError UnicodeError ImportError ModuleNotFoundError TimeoutError "
    "MemoryError".split()
)
# Context managers that swallow no AssertionError.
PLAIN_MANAGERS = frozenset(
    "redirect_stdout redirect_stderr patch object dict open subTest StringIO TemporaryDirectory NamedTemporaryFile "
    "catch_warnings localcontext closing nullcontext".split()
)
TIMES_UNKNOWN = None


class Site:
    """A comparison outside: `code` is the expression, in which `__H__(i)` stands for operand i."""

    def __init__(self, number, code, operands, scope, text):
        self.number, self.code, self.operands, self.scope, self.text = number, code, operands, scope, text


class Unit:
    """A setup or a test: the statements that run inside, the sites that must come and how often (`TIMES_UNKNOWN` is any
    number of times), and why something of it is judged inside."""

    def __init__(self, number, tree):
        self.number, self.tree = number, tree
        self.classes = collect(tree) if number else set()  # a setup only defines
        self.body, self.sites, self.reasons, self.asserts = tree.body, {}, [], 0


class Owner:
    """What the assertions of a function or test class come to, whoever calls it."""

    def __init__(self):
        self.sites, self.reasons, self.asserts = {}, [], 0


class Split:
    """The setup (unit 0) and the tests of a problem, split. `reference` is the reference solution's source, or None;
    `forced` are numbers of sites that are to stay inside. SyntaxError if the reference is no Python."""

    def __init__(self, setup, tests, reference=None, forced=frozenset()):
        self.forced, self.sites, self.count = forced, [], 0
        known = ast.parse(reference or "")
        self.kept = globals_read(reference or "") - top_level(known)
        trees = [setup, *tests]
        for tree in trees:
            Unroll(tree, self.kept).visit(tree)
        self.units = [Unit(number, tree) for number, tree in enumerate(trees)]
        self.shadow = self.shadowed(trees, known if reference else None)
        self.closed = Closed(self.shadow)
        self.lift = Lift(self.closed, self.shadow, functions_in(trees))
        self.helpers = self.find_helpers(trees)
        self.owners, self.base, self.depth = {}, Scope(), 0
        rebound = assigned([s for tree in trees[1:] for s in tree.body if not isinstance(s, (ast.Import, ast.ImportFrom))])
        self.imports_of_reference(known)
        for unit in self.units:
            self.unit = self.owner = unit
            scope = self.base if unit.number == 0 else Scope(self.base)
            scope.bound |= assigned(unit.body)
            self.closed.find(unit.body, scope, shared_with=None if unit.number else rebound)
            unit.body = self.block(unit.body, scope, True, None)
        self.settle()
        self.drop_dead()

    def shadowed(self, trees, reference):
        """Built-in names that mean the program's: the reference binds them, or, without one, they are all a test names."""
        if reference is not None:
            return top_level(reference) & BUILTINS
        names = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
        free = names - assigned(trees)
        return frozenset() if free - BUILTINS else free & BUILTINS

    def find_helpers(self, trees):
        """Functions that are only ever called as statements of a module: nothing can catch what they assert."""
        defined, loads, calls = set(), {}, {}
        for tree in trees:
            defined |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                    loads[node.id] = loads.get(node.id, 0) + 1
            for called in calls_in(tree):
                calls[called] = calls.get(called, 0) + 1
        return {name for name in defined if calls.get(name) and calls[name] == loads[name]}

    def imports_of_reference(self, reference):
        """Pure modules that the reference imports under names that a test may use."""
        used = {node.id for unit in self.units for node in ast.walk(unit.tree) if isinstance(node, ast.Name)}
        imports = [s for s in reference.body if isinstance(s, (ast.Import, ast.ImportFrom))]
        own = assigned(s for s in reference.body if s not in imports)
        for statement in imports:
            names = {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
            if names & used and not names & own:
                self.closed.find_import(statement, self.base)

    # Statements. `once`: runs exactly once whenever its owner does; `guard`: why an assertion must stay, or None.

    def block(self, body, scope, once, guard):
        return [new for statement in body for new in self.statement(statement, scope, once, guard)]

    def statement(self, node, scope, once, guard):
        def inner(body, once, guard):
            return self.block(body, scope, once, guard) or [ast.copy_location(ast.Pass(), node)]

        if isinstance(node, ast.Assert):
            return self.assertion(node, node.test, scope, once, guard)
        if isinstance(node, ast.Expr) and is_unittest(node.value) and self.in_test_class:
            test = unittest_test(node.value)
            if test is None:
                return self.stays(node, f"`{node.value.func.attr}`")
            return self.assertion(node, test, scope, once, guard)
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While, ast.If)):
            node.body, node.orelse = inner(node.body, False, guard), self.block(node.orelse, scope, False, guard)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            managers = [last_name(item.context_expr) for item in node.items]
            if any(manager.startswith(("assertRaises", "raises", "assertWarns", "assertLogs")) for manager in managers):
                self.note("an expected exception")
            plain = PLAIN_MANAGERS.issuperset(managers)
            node.body = inner(node.body, once and plain, guard if plain else "a context manager may swallow it")
        elif isinstance(node, ast.Try) or type(node).__name__ == "TryStar":
            narrow = all(is_narrow(handler.type) for handler in node.handlers)
            node.body = inner(node.body, False, guard if narrow else "a handler may catch it")
            for handler in node.handlers:
                handler.body = inner(handler.body, False, guard)
            node.orelse, node.finalbody = (self.block(body, scope, False, guard) for body in (node.orelse, node.finalbody))
        elif isinstance(node, ast.Match):
            for case in node.cases:
                case.body = inner(case.body, False, guard)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.function(node, scope)
        elif isinstance(node, ast.ClassDef):
            self.test_class(node, scope)
        return [node]

    in_test_class = False

    def owner_of(self, name):
        return self.owners.setdefault((self.unit.number, name), Owner())

    def function(self, node, scope):
        """A function's assertions count for those who call it."""
        parameters = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        inside = Scope(scope)
        inside.bound = assigned(node.body) | parameters
        self.closed.find(node.body, inside, exclude=parameters)
        generates = any(isinstance(part, (ast.Yield, ast.YieldFrom)) for part in ast.walk(node))
        plain = not node.decorator_list and isinstance(node, ast.FunctionDef) and not generates and not self.depth
        before, guard = self.owner, None
        if self.in_test_class:
            if not (plain and node.name.startswith("test")):
                guard = "a method that is no test"
        elif not self.depth:
            self.owner = self.owner_of(node.name)
        if not self.in_test_class and not (plain and node.name in self.helpers):
            guard = "a function that the program could call"
        self.depth += 1
        node.body = self.block(node.body, inside, not may_leave(node), guard) or [ast.Pass()]
        self.depth -= 1
        self.owner = before

    def test_class(self, node, scope):
        before, self.owner = self.owner, self.owner_of(node.name)
        bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
        derived = any(
            isinstance(base, ast.Name) and base.id == node.name
            for other in self.unit.tree.body
            if isinstance(other, ast.ClassDef)
            for base in other.bases
        )
        own = any(isinstance(part, ast.FunctionDef) and part.name.startswith(("assert", "run")) for part in node.body)
        if node.name in self.unit.classes and not (own or derived or bases & self.unit.classes or node.decorator_list):
            self.in_test_class = True
            node.body = self.block(node.body, scope, False, "a class body") or [ast.Pass()]
            self.in_test_class = False
        elif any(isinstance(part, ast.Assert) or is_unittest(part) for part in ast.walk(node)):
            self.note("assertions in a class")
        self.owner = before

    def note(self, reason):
        self.owner.asserts += 1
        if reason not in self.owner.reasons:
            self.owner.reasons.append(reason)

    def stays(self, node, reason):
        self.note(reason)
        return [node]

    def assertion(self, node, test, scope, once, guard):
        text = getattr(node, "shown", None) or ast.unparse(test)
        parts = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
        if guard:
            return self.stays(node, guard)
        new = []
        for part in parts:
            if isinstance(part, ast.Constant):
                if not part.value:
                    new += self.stays(ast.Assert(part, None), "control flow")
                continue
            number, operands = self.count, []
            self.count += 1
            try:
                code = self.lift.lift_test(part, scope, operands)
                if not operands:
                    raise Inside("nothing of the program's in it")
                if number in self.forced:
                    raise Inside("the reference's value can't be sent")
            except Inside as reason:
                whole = len(parts) == 1
                new += self.stays(node if whole else ast.Assert(part, None), str(reason))
                continue
            shown = text if len(parts) == 1 else ast.unparse(part)
            self.sites.append(Site(number, code, operands, scope, shown))
            self.owner.asserts += 1
            self.owner.sites[number] = 1 if once else TIMES_UNKNOWN
            for place, operand in enumerate(operands):
                arguments = [ast.Constant(number), ast.Constant(place), operand]
                new.append(ast.Expr(ast.Call(ast.Name("__h__", ast.Load()), arguments, [])))
        return [ast.copy_location(statement, node) for statement in new]

    # What each test must send, and what need not enter.

    def settle(self):
        """Adds to each unit what the functions and classes that it calls assert."""
        names = [{part.id for part in ast.walk(unit.tree) if isinstance(part, ast.Name)} for unit in self.units]
        for unit, loaded in zip(self.units, names):
            calls = calls_in(unit.tree)
            for name in sorted(loaded | unit.classes):
                owner = self.find_owner(unit, name)
                if owner is None or not owner.asserts:
                    continue
                for number, times in owner.sites.items():
                    known = times is not TIMES_UNKNOWN and name in calls
                    unit.sites[number] = times * calls.count(name) if known else TIMES_UNKNOWN
                if unit.number or name in calls:
                    unit.asserts += owner.asserts
                    unit.reasons += [reason for reason in owner.reasons if reason not in unit.reasons]
            if any(times is TIMES_UNKNOWN for times in unit.sites.values()):
                unit.reasons.append("a loop or branch decides how often it compares")
            if unit.number and not unit.asserts and any(not is_idle(node) for node in unit.body):
                unit.reasons.append("it asserts nothing")

    def find_owner(self, unit, name):
        """The function or class of that name that the unit sees."""
        numbers = range(unit.number, -1, -1)
        return next((self.owners[number, name] for number in numbers if (number, name) in self.owners), None)

    def drop_dead(self):
        """Closed names that nothing loads any more do not enter, unless the reference reads them."""
        while True:
            loaded = {
                node.id
                for unit in self.units
                for statement in unit.body
                for node in ast.walk(statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            } | self.kept
            dead = Dead(loaded, self.scopes())
            for unit in self.units[1:]:
                dead.drop(unit)
            for unit in self.units[:1]:  # the program may use what the setup names; its functions' own names are theirs
                for statement in unit.body:
                    dead.visit_inner(statement)
            if not dead.dropped:
                return

    def scopes(self):
        found = {}
        scopes = {id(site.scope): site.scope for site in self.sites}
        for scope in list(scopes.values()):
            while scope:
                found.update({id(statement): name for statement, name in scope.statements if name})
                scope = scope.parent
        return found


class Dead(ast.NodeTransformer):
    def __init__(self, loaded, closed):
        self.loaded, self.closed, self.dropped = loaded, closed, 0

    def visit_Assign(self, node):
        if id(node) in self.closed and self.closed[id(node)] not in self.loaded:
            self.dropped += 1
            return None
        return node

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def drop(self, unit):
        module = ast.Module(unit.body, [])
        self.generic_visit(module)
        unit.body = module.body

    def visit_inner(self, statement):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.visit(statement)


def calls_in(tree):
    """The functions that a module calls as statements, and the test classes that it runs."""
    calls = []
    for statement in tree.body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            runs = call.func.id == "__case__"
            calls.append(call.args[0].id if runs else call.func.id)
    return calls


def functions_in(trees):
    """The names of functions that the setup and the tests define."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names.add(node.name)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def is_narrow(kind):
    """Whether a handler catches nothing but exceptions that no assertion raises."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return all(isinstance(each, ast.Name) and each.id in NARROW for each in kinds)


def is_idle(node):
    """Whether a statement does nothing: `pass`, or a text."""
    return isinstance(node, ast.Pass) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def may_leave(function):
    """Whether a function may end before its last statement, or skip the rest of its test."""
    last = function.body[-1]
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node is not last or isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call) and last_name(node) in ("skipTest", "skip", "fail", "exit"):
            return True
    return False


def globals_read(source):
    """The names that a program reads and does not bind in the function that reads them."""
    names, tables = set(), [symtable.symtable(source, "<reference>", "exec")]
    while tables:
        table = tables.pop()
        names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced() and symbol.is_global()}
        if table.get_type() == "module":
            names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
        tables += table.get_children()
    return names
