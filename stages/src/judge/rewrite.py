"""Brings a test's statements into the forms that `split.py` knows, without a change of meaning.

Functions and classes of tests that nothing calls (pytest, unittest) are called at the end; loops over a literal table are
unrolled, so that each row's expected value stands alone; calls of `self.assertEqual` and its like become expressions.
"""

import ast
import copy

MOST_ROWS = 64
LITERAL = (
    ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop, ast.expr_context,
)  # fmt: skip
COMPARISONS = {
    "assertEqual": ast.Eq, "assertEquals": ast.Eq, "assertNotEqual": ast.NotEq, "assertIs": ast.Is, "assertIsNot": ast.IsNot,
    "assertIn": ast.In, "assertNotIn": ast.NotIn, "assertGreater": ast.Gt, "assertGreaterEqual": ast.GtE,
    "assertLess": ast.Lt, "assertLessEqual": ast.LtE, "assertMultiLineEqual": ast.Eq, "assertSequenceEqual": ast.Eq,
}  # fmt: skip
# These ask for the type of both sides, too.
TYPED = {
    "assertListEqual": "list", "assertTupleEqual": "tuple", "assertDictEqual": "dict", "assertSetEqual": "set",
}  # fmt: skip
KEYWORDS = ("first", "second", "expr", "obj", "member", "container", "cls", "list1", "list2", "tuple1", "tuple2", "d1", "d2", "set1", "set2", "expr1", "expr2", "a", "b")  # fmt: skip


def name(text):
    return ast.Name(text, ast.Load())


def called(function, *arguments):
    return ast.Call(name(function), list(arguments), [])


def is_test_class(node, known):
    bases = [ast.unparse(base) for base in node.bases]
    return any("TestCase" in base or base in known for base in bases) or node.name.startswith("Test") and not bases


def collect(tree):
    """Appends calls of a module's test functions and classes, if it does nothing but define them; the classes' names."""
    body = [statement for statement in tree.body if not is_main(statement)]
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    docstring = lambda node: isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    if not all(isinstance(node, definitions) or docstring(node) for node in body):
        return set()
    classes, calls = {}, []
    for node in body:
        if isinstance(node, ast.ClassDef) and is_test_class(node, classes):
            classes[node.name] = node
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
            calls.append(called("__run__" if isinstance(node, ast.AsyncFunctionDef) else node.name))
            if isinstance(node, ast.AsyncFunctionDef):
                calls[-1].args = [called(node.name)]
    calls += [called("__case__", name(title)) for title in classes]
    if calls:
        tree.body = body + [ast.copy_location(ast.Expr(call), body[-1]) for call in calls]
    return set(classes) if calls else set()


def is_main(node):
    """`if __name__ == "__main__":` of a module that is no program here, or a bare `unittest.main()`."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")
    return isinstance(node, ast.Expr) and ast.unparse(node.value).startswith(("unittest.main(", "pytest.main("))


class Unroll(ast.NodeTransformer):
    """Unrolls loops over literal tables that hold assertions. `kept` are names that the program reads."""

    def __init__(self, tree, kept):
        self.kept, self.rows = kept, 0
        loads = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        self.loads = {text: loads.count(text) for text in set(loads)}

    def visit_Lambda(self, node):
        return node

    def visit_For(self, node):
        self.generic_visit(node)
        names = targets(node.target)
        if names is None or node.orelse or not isinstance(node.iter, (ast.List, ast.Tuple)):
            return node
        inside = [inner for statement in node.body for inner in ast.walk(statement)]
        rows = [row_of(row, names) for row in node.iter.elts]
        if (
            None in rows
            or not rows
            or self.rows + len(rows) > MOST_ROWS
            or self.kept.intersection(names)
            or not any(isinstance(inner, ast.Assert) or is_unittest(inner) for inner in inside)
            or any(isinstance(inner, UNSAFE) for inner in inside)
            or any(isinstance(inner, ast.Name) and inner.id in names and not isinstance(inner.ctx, ast.Load) for inner in inside)
        ):
            return node
        unrolled, start = [], self.rows
        self.rows += len(rows)
        for number, row in enumerate(rows, start):
            renamed = {old: f"{old} {number}" for old in names}
            for old, value in zip(names, row):
                unrolled.append(ast.Assign([ast.Name(renamed[old], ast.Store())], value))
            values = ", ".join(f"{old} = {ast.unparse(value)[:60]}" for old, value in zip(names, row))
            unrolled += [Renamed(renamed, values).visit(copy.deepcopy(statement)) for statement in node.body]
        uses = [inner.id for inner in inside if isinstance(inner, ast.Name)]
        for old in names:
            if self.loads.get(old, 0) > uses.count(old):  # read after the loop
                unrolled.append(ast.Assign([ast.Name(old, ast.Store())], name(f"{old} {self.rows - 1}")))
        return [ast.copy_location(statement, node) if not hasattr(statement, "lineno") else statement for statement in unrolled]


UNSAFE = (
    ast.Break, ast.Continue, ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.GeneratorExp, ast.Global,
    ast.Nonlocal, ast.Return, ast.Yield, ast.YieldFrom, ast.Await, ast.Delete,
)  # fmt: skip


class Renamed(ast.NodeTransformer):
    def __init__(self, names, values):
        self.names, self.values = names, values

    def visit_Name(self, node):
        return ast.copy_location(ast.Name(self.names.get(node.id, node.id), node.ctx), node)

    def visit_Assert(self, node):
        return self.shown(node, node.test)

    def visit_Expr(self, node):
        return self.shown(node, node.value)

    def shown(self, node, expression):
        """Keeps the text that the test's author wrote."""
        if not hasattr(node, "shown"):
            node.shown = f"{ast.unparse(expression)} where {self.values}"
        return self.generic_visit(node)


def targets(node):
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Tuple) and len(node.elts) > 1 and all(isinstance(part, ast.Name) for part in node.elts):
        return [part.id for part in node.elts]
    return None


def row_of(row, names):
    """The values of the names in one row of a table; None if it is not so plain."""
    if not all(isinstance(node, LITERAL) for node in ast.walk(row)):
        return None
    if len(names) == 1 and not isinstance(row, ast.Starred):
        return [row]
    return row.elts if isinstance(row, (ast.Tuple, ast.List)) and len(row.elts) == len(names) else None


def is_unittest(node):
    """Whether it is a call `self.assert...(...)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
        and node.func.attr.startswith("assert")
    )


def unittest_test(call):
    """The expression that a `self.assert...` call says is true; None for one that has no such form."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    method = call.func.attr
    arguments = [*call.args, *(keywords[key] for key in KEYWORDS if key in keywords)]
    if any(isinstance(argument, ast.Starred) for argument in arguments) or not arguments:
        return None
    one, two = arguments[0], arguments[1] if len(arguments) > 1 else None
    compare = lambda operator, other: ast.Compare(one, [operator], [other])
    if method == "assertTrue":
        return one
    if method == "assertFalse":
        return ast.UnaryOp(ast.Not(), one)
    if method in ("assertIsNone", "assertIsNotNone"):
        return compare(ast.Is() if method == "assertIsNone" else ast.IsNot(), ast.Constant(None))
    if two is None:
        return None
    if method in COMPARISONS and not (method == "assertSequenceEqual" and (len(arguments) > 3 or "seq_type" in keywords)):
        return compare(COMPARISONS[method](), two)
    if method in TYPED:
        return called("__typed__", one, two, name(TYPED[method]))
    if method == "assertIsInstance":
        return called("isinstance", one, two)
    if method == "assertNotIsInstance":
        return ast.UnaryOp(ast.Not(), called("isinstance", one, two))
    if method in ("assertAlmostEqual", "assertNotAlmostEqual"):
        places = keywords.get("places") or (arguments[2] if len(arguments) > 2 else ast.Constant(None))
        near = called("__almost__", one, two, places, keywords.get("delta") or ast.Constant(None))
        return near if method == "assertAlmostEqual" else ast.UnaryOp(ast.Not(), near)
    return None
