"""Which statements can change no object: after them only the variables that they bind need to be looked at.

That is known where nothing that a statement does can run the program's own code: no class of it has operators, no
iterator of it calls back, and functions are called by name only. A program in which that is in doubt has no such statement.
"""

import ast

FUNCTIONS = set(
    "abs all any ascii bin bool chr complex dict divmod enumerate float format frozenset hash hex int isinstance len list"
    " max min oct ord pow print range repr reversed round set sorted str sum tuple zip".split()
)
METHODS = set(
    "bit_length capitalize casefold ceil center copy count difference endswith fabs factorial find floor format get gcd"
    " index intersection isalnum isalpha isdecimal isdigit isdisjoint islower isnumeric isspace issubset"
    " issuperset isupper items join keys ljust log lower lstrip replace rfind rindex rjust rsplit rstrip split splitlines"
    " sqrt startswith strip swapcase symmetric_difference title union upper values zfill".split()
)
# They may run the program's code later, or change what others mean.
DOUBTFUL_NAMES = set(
    "* __builtins__ builtins collections defaultdict eval exec filter functools globals iter itertools locals map"
    " operator setattr type vars".split()
)
DOUBTFUL = (ast.ClassDef, ast.Yield, ast.YieldFrom, ast.Await)
HARMLESS = (
    ast.Name, ast.Constant, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Slice,
    ast.Attribute, ast.Starred, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp, ast.comprehension, ast.NamedExpr, ast.JoinedStr, ast.FormattedValue, ast.expr_context, ast.operator,
    ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def inert_places(tree, places):
    """By place: True, or the variable whose value must be of a type that can't be changed, for `x += y`."""
    nodes = list(ast.walk(tree))
    bound = {name for node in nodes for name in names_bound(node)}
    words = bound | {node.id for node in nodes if isinstance(node, ast.Name)}
    words |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    functions = FUNCTIONS - bound
    generators = [node for node in nodes if isinstance(node, ast.GeneratorExp)]
    if words & DOUBTFUL_NAMES or any(isinstance(node, DOUBTFUL) for node in nodes):
        return {}
    if not all(harmless(generator, functions) for generator in generators):
        return {}
    inert = {}
    for node in nodes:
        if isinstance(node, ast.stmt):
            place, found = places.get(node.lineno, node.lineno), statement(node, functions)
            inert[place] = found if inert.get(place, True) is True else False
    return inert


def names_bound(node):
    """Names that this node gives a meaning, wherever in the program."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return [node.id]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Import):
        return [word for alias in node.names for word in (*alias.name.split("."), alias.asname) if word]
    if isinstance(node, ast.ImportFrom):
        return [word for alias in node.names for word in (node.module, alias.name, alias.asname) if word]
    return []


def statement(node, functions):
    if isinstance(node, (ast.Pass, ast.Break, ast.Continue, ast.Global, ast.Nonlocal, ast.Try)):
        return True
    if isinstance(node, (ast.If, ast.While, ast.Assert)):
        return harmless(node.test, functions)
    if isinstance(node, ast.For):
        return only_names(node.target) and harmless(node.iter, functions)
    if isinstance(node, ast.Assign):
        return all(map(only_names, node.targets)) and harmless(node.value, functions)
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Name) and harmless(node.value, functions) and node.target.id
    if isinstance(node, (ast.Return, ast.Expr)):
        return node.value is None or harmless(node.value, functions)
    return False


def only_names(target):
    return isinstance(target, ast.Name) or isinstance(target, (ast.Tuple, ast.List)) and all(map(only_names, target.elts))


def harmless(expression, functions):
    return all(isinstance(node, HARMLESS) or is_harmless_call(node, functions) for node in ast.walk(expression))


def is_harmless_call(node, functions):
    if not isinstance(node, ast.Call) or node.keywords:
        return False
    called = node.func
    return isinstance(called, ast.Name) and called.id in functions or isinstance(called, ast.Attribute) and called.attr in METHODS
