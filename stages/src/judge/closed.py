"""Which expressions of a test are closed: what they evaluate to can be neither reached nor changed by any program under test.

Closed expressions are constants, displays, operators, comprehensions and pure functions over closed expressions, and names
that the test binds once to one of them and never lets out. They may be taken out of the program's process.
"""

import ast
import builtins

is_unittest = shared[b"rewrite"]["is_unittest"]

# Modules of pure functions, if the test or its setup imports them.
MODULES = frozenset(
    "math cmath fractions decimal datetime collections itertools functools operator string statistics re json typing "
    "heapq bisect textwrap copy enum numbers".split()
)
PURE = frozenset(
    "abs round sorted list tuple set frozenset dict len sum min max all any zip enumerate reversed range str repr int "
    "float bool complex bytes bytearray divmod pow map filter ord chr isinstance issubclass type slice bin hex oct format "
    "ascii".split()
)
CLASSES = frozenset("int str list dict tuple float set bool bytes complex frozenset bytearray".split())
METHODS = frozenset(
    "count index get items keys values copy upper lower title split rsplit join strip lstrip rstrip format startswith "
    "endswith replace encode decode isdigit isalpha find rfind union intersection difference symmetric_difference issubset "
    "issuperset total_seconds date isoformat strftime splitlines zfill bit_length most_common capitalize swapcase hex ljust "
    "rjust center quantize conjugate elements casefold partition rpartition expandtabs isupper islower isspace isalnum "
    "weekday isoweekday timestamp".split()
)
# Of those modules: what gives another value each time, holds state, or copies by calling an object's own code.
IMPURE = frozenset("starmap tee count cycle repeat now today utcnow deepcopy copy reduce partial lru_cache cache".split())
BUILTINS = frozenset(dir(builtins))


def assigned(nodes):
    """Every name that the statements bind, at any depth."""
    names = set()
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
                names.add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
                names.add(node.name)
            elif isinstance(node, ast.alias):
                names.add((node.asname or node.name).split(".")[0])
            elif isinstance(node, ast.arg):
                names.add(node.arg)
    return names


def top_level(tree):
    """The names that a module binds outside its functions and classes."""
    names = set()
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(statement.name)
        else:
            names |= assigned([statement])
    return names


def immutable(value):
    """Whether an expression is made of constants alone that nobody can change."""
    if isinstance(value, ast.UnaryOp):
        return immutable(value.operand)
    if isinstance(value, ast.Tuple):
        return all(map(immutable, value.elts))
    if isinstance(value, ast.BinOp):
        return immutable(value.left) and immutable(value.right)
    return isinstance(value, ast.Constant)


class Scope:
    """The names of a test's module level or of one of its functions: all that it binds, those that are closed, and the
    statements that bind these, as pairs of statement and name (None for an import)."""

    def __init__(self, parent=None):
        self.parent, self.bound, self.closed, self.statements = parent, set(), set(), []

    def is_closed(self, name, builtin_names):
        if name in self.closed:
            return True
        if name in self.bound:
            return False
        return self.parent.is_closed(name, builtin_names) if self.parent else name in builtin_names


class Closed:
    """What is closed in one problem's setup and tests; `shadowed` are built-in names that mean the program's."""

    def __init__(self, shadowed):
        self.builtins, self.modules = PURE - shadowed, set()

    def is_closed(self, node, scope, local=frozenset()):
        """Whether an expression is closed; `local` are names that a comprehension or lambda around it binds."""
        closed = lambda inner: self.is_closed(inner, scope, local)
        if isinstance(node, ast.Constant):
            return True
        if isinstance(node, ast.Name):
            return node.id in local or scope.is_closed(node.id, self.builtins)
        if isinstance(node, ast.Attribute):
            return closed(node.value) and not node.attr.startswith("_")
        if isinstance(node, ast.Call):
            return self.call_is_closed(node, scope, closed)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            inner = local | assigned([generator.target for generator in node.generators])
            closed = lambda part: self.is_closed(part, scope, inner)
            parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            loops = [part for generator in node.generators for part in (generator.iter, *generator.ifs)]
            return not any(generator.is_async for generator in node.generators) and all(map(closed, parts + loops))
        if isinstance(node, ast.Lambda):
            names = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
            plain = not node.args.defaults and not node.args.kw_defaults
            return plain and self.is_closed(node.body, scope, local | names)
        if isinstance(
            node,
            (
                ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp,
                ast.Subscript, ast.Slice, ast.Starred, ast.FormattedValue, ast.JoinedStr, ast.keyword,
            ),
        ):  # fmt: skip
            children = (child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.expr, ast.keyword)))
            return all(map(closed, children))
        return False

    def call_is_closed(self, call, scope, closed):
        if not (all(map(closed, call.args)) and all(closed(keyword.value) for keyword in call.keywords)):
            return False
        called = call.func
        if isinstance(called, ast.Name):
            return closed(called) and called.id not in IMPURE
        if not isinstance(called, ast.Attribute) or not closed(called.value):
            return False
        root = called.value
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id in self.modules:
            return called.attr not in IMPURE
        return called.attr in METHODS

    def is_trusted(self, called, scope):
        """Whether a called function is a pure one that no program can have replaced."""
        if isinstance(called, ast.Name):
            return called.id == "__almost__" or scope.is_closed(called.id, self.builtins) and called.id not in IMPURE
        if not (isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)):
            return False
        return called.value.id in self.modules and scope.is_closed(called.value.id, frozenset())

    def find(self, body, scope, shared_with=None, exclude=frozenset()):
        """Finds the closed names of a scope; none of `exclude`. For the setup, `shared_with` are the names that some test
        binds: what a setup binds is the program's, too, so that only constants that no test rebinds are closed there."""
        for statement in body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                self.find_import(statement, scope)
        stores = {}
        for root in body:
            for node in ast.walk(root):
                if isinstance(node, (ast.Global, ast.Nonlocal)):
                    stores.update(dict.fromkeys(node.names, 2))
                else:
                    for name in names_bound_by(node):
                        stores[name] = stores.get(name, 0) + 1
        candidates = {}
        for statement in body:
            if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1):
                continue
            target = statement.targets[0]
            if isinstance(target, ast.Name) and stores.get(target.id) == 1 and target.id not in exclude:
                if shared_with is None or target.id not in shared_with and immutable(statement.value):
                    candidates[target.id] = statement
        while True:
            scope.closed |= set(candidates)
            wrong = {name for name, statement in candidates.items() if not self.is_closed(statement.value, scope)}
            if not wrong:
                escaped = set()
                for root in body:
                    self.escapes(root, scope, escaped)
                wrong = {name for name in escaped & candidates.keys() if not immutable(candidates[name].value)}
            if not wrong:
                break
            for name in wrong:
                del candidates[name]
            scope.closed -= wrong
        scope.statements += [(statement, name) for name, statement in candidates.items()]
        scope.statements.sort(key=lambda pair: pair[0].lineno)

    def find_import(self, statement, scope):
        plain = isinstance(statement, ast.Import)
        modules = [alias.name for alias in statement.names] if plain else [statement.module or ""]
        if not all(module.split(".")[0] in MODULES for module in modules) or not plain and statement.level:
            return
        if not plain and any(alias.name in IMPURE or alias.name == "*" for alias in statement.names):
            return
        names = {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
        if plain:
            self.modules |= names
        scope.closed |= names
        scope.statements.append((statement, None))

    def escapes(self, node, scope, found):
        """Adds to `found` the names whose object a statement could hand to the program, alias or change."""
        if isinstance(node, ast.expr):
            self.expression_escapes(node, scope, found)
        elif isinstance(node, ast.Assign):
            plain = all(isinstance(target, ast.Name) for target in node.targets) and not isinstance(node.value, ast.Name)
            if not (plain and self.is_closed(node.value, scope)):
                found |= names_in(node)
        elif isinstance(node, ast.Assert):
            self.escapes(node.test, scope, found)
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.Delete, ast.For, ast.While, ast.With, ast.Return, ast.Raise)):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    self.escapes(child, scope, found)
                else:
                    found |= names_in(child)
        elif isinstance(node, ast.AST):
            for child in ast.iter_child_nodes(node):
                self.escapes(child, scope, found)

    def expression_escapes(self, node, scope, found):
        if self.is_closed(node, scope):
            return
        if isinstance(node, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            children = ast.iter_child_nodes(node)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            children = (node.left, node.right)
        elif isinstance(node, ast.Call) and (self.is_trusted(node.func, scope) or is_unittest(node)):
            children = (*node.args, *(keyword.value for keyword in node.keywords))
        else:
            found |= names_in(node)
            return
        for child in children:
            if isinstance(child, ast.expr):
                self.expression_escapes(child, scope, found)


def names_in(node):
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def names_bound_by(node):
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, (ast.Store, ast.Del)) else []
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return [node.name] if node.name else []
    if isinstance(node, ast.alias):
        return [(node.asname or node.name).split(".")[0]]
    return [node.arg] if isinstance(node, ast.arg) else []
