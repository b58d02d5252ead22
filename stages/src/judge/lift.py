"""Takes the program's operands out of a comparison: what is left can be evaluated outside, over copies of their values."""

import ast

BUILTINS, CLASSES, assigned = (shared[b"closed"][key] for key in ("BUILTINS", "CLASSES", "assigned"))
SINGLETONS = (None, True, False, ...)


class Inside(Exception):
    """The assertion can't be split; says why."""


FORMS = {
    ast.BoolOp: "`or`",
    ast.IfExp: "a conditional expression",
    ast.NamedExpr: "an assignment or `await` within it",
    ast.Await: "an assignment or `await` within it",
}


class Lift:
    """`closed` says what is closed (`closed.py`); `shadow` are built-in names that mean the program's, `functions` those
    that the tests define."""

    def __init__(self, closed, shadow, functions):
        self.closed, self.shadow, self.functions = closed, shadow, functions

    def operand(self, node, operands):
        if any(isinstance(part, (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)) for part in ast.walk(node)):
            raise Inside("an assignment or `await` within it")
        operands.append(node)
        return ast.Call(ast.Name("__H__", ast.Load()), [ast.Constant(len(operands) - 1)], [])

    def lift_test(self, node, scope, operands):
        """The test of an assertion with its operands taken out."""
        if self.closed.is_closed(node, scope):
            return node
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, self.lift_test(node.operand, scope, operands))
        if isinstance(node, ast.Compare):
            return self.lift_compare(node, scope, operands)
        if self.mixes(node, scope):
            return self.lift(node, scope, operands)
        root = node
        while isinstance(root, (ast.Attribute, ast.Subscript)):
            root = root.value
        self.refuse_own_answer(node)
        if isinstance(root, ast.Call):
            built_in = isinstance(root.func, ast.Name) and root.func.id in BUILTINS - self.shadow
            if built_in or self.closed.is_trusted(root.func, scope):
                raise Inside("a built-in function says so of an object of the program's")
            if last_name(root) in ("isclose", "allclose", "array_equal"):
                raise Inside("a function that the test does not import compares")
        if isinstance(node, (ast.Call, ast.Name, ast.Attribute, ast.Subscript)):
            return self.operand(node, operands)
        raise Inside(FORMS.get(type(node), "its form"))

    def refuse_own_answer(self, node):
        """A yes or no of a function that the test defines was found inside, whatever is done with it outside."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions:
            raise Inside("a function of the test's own decides")

    def lift_compare(self, node, scope, operands):
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Constant) and (side.value is None or type(side.value) is bool) for side in sides):
            for side in sides:
                self.refuse_own_answer(side)
        closed = [self.closed.is_closed(side, scope) for side in sides]
        for place, operator in enumerate(node.ops):
            left, right = closed[place : place + 2]
            if not (left or right):
                raise Inside("both sides are the program's")
            theirs, ours = (sides[place], sides[place + 1]) if right else (sides[place + 1], sides[place])
            if isinstance(operator, (ast.Is, ast.IsNot)) and not is_one_of_a_kind(theirs, ours):
                raise Inside("identity")
            if isinstance(operator, (ast.In, ast.NotIn)) and not right and not isinstance(sides[place + 1], ast.Call):
                raise Inside("membership in an object of the program's")
        lifted = [side if shut else self.lift(side, scope, operands) for side, shut in zip(sides, closed)]
        return ast.Compare(lifted[0], node.ops, lifted[1:])

    def mixes(self, node, scope):
        """Whether an expression holds a comparison, or a difference, of something of the program's with something closed."""
        if self.closed.is_closed(node, scope):
            return False
        if isinstance(node, ast.Compare):
            return True
        any_of = lambda parts: any(self.mixes(part, scope) for part in parts)
        if isinstance(node, ast.BinOp):
            closed = self.closed.is_closed(node.left, scope) or self.closed.is_closed(node.right, scope)
            return closed and isinstance(node.op, (ast.Sub, ast.BitXor)) or any_of((node.left, node.right))
        if isinstance(node, ast.Call):
            if not self.closed.is_trusted(node.func, scope):
                return False
            function = last_name(node)
            compares = function in ("isclose", "isinstance", "zip", "__almost__", "__typed__")
            closed = any(self.closed.is_closed(argument, scope) for argument in node.args)
            return function == "type" or compares and closed or any_of(node.args)
        if isinstance(node, (ast.GeneratorExp, ast.ListComp)):
            compares = any(isinstance(part, ast.Compare) for part in ast.walk(node))
            return compares or any_of(generator.iter for generator in node.generators)
        if isinstance(node, (ast.UnaryOp, ast.BoolOp, ast.IfExp, ast.Tuple, ast.List)):
            return any_of(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
        return False

    def lift(self, node, scope, operands):
        """A side of a comparison with its operands taken out: all of it, unless it mixes."""
        if self.closed.is_closed(node, scope):
            return node
        if not self.mixes(node, scope):
            return self.operand(node, operands)
        lift = lambda part: self.lift(part, scope, operands)
        if isinstance(node, ast.Compare):
            return self.lift_compare(node, scope, operands)
        if isinstance(node, ast.BinOp):
            return ast.BinOp(lift(node.left), node.op, lift(node.right))
        if isinstance(node, ast.UnaryOp):
            return ast.UnaryOp(node.op, lift(node.operand))
        if isinstance(node, (ast.Tuple, ast.List)):
            return type(node)([lift(part) for part in node.elts], ast.Load())
        if isinstance(node, ast.Call):
            return self.lift_call(node, scope, lift)
        if isinstance(node, (ast.GeneratorExp, ast.ListComp)) and len(node.generators) == 1:
            generator = node.generators[0]
            names = frozenset(assigned([generator.target]))
            if all(self.closed.is_closed(part, scope, names) for part in (node.elt, *generator.ifs)):
                outside = ast.comprehension(generator.target, lift(generator.iter), generator.ifs, 0)
                return type(node)(node.elt, [outside])
            raise Inside("the program is called in a comprehension that compares")
        raise Inside(FORMS.get(type(node), "its form"))

    def lift_call(self, node, scope, lift):
        function = last_name(node)
        if function in ("__almost__", "__typed__") and not any(self.closed.is_closed(side, scope) for side in node.args[:2]):
            raise Inside("both sides are the program's")
        if function in ("isinstance", "issubclass") and isinstance(node.func, ast.Name):
            kinds = node.args[1] if len(node.args) > 1 else None
            kinds = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
            if function == "issubclass" or not all(isinstance(kind, ast.Name) and kind.id in CLASSES for kind in kinds):
                raise Inside("the class of an object of the program's")
        keywords = [ast.keyword(keyword.arg, lift(keyword.value)) for keyword in node.keywords]
        return ast.Call(node.func, [lift(argument) for argument in node.args], keywords)


def last_name(node):
    """The name of what a call calls; empty if it has none."""
    called = node.func if isinstance(node, ast.Call) else None
    return getattr(called, "attr", None) or getattr(called, "id", "")


def is_one_of_a_kind(theirs, ours):
    """Whether `theirs is ours` can be said of a copy."""
    if isinstance(ours, ast.Constant):
        return any(ours.value is single for single in SINGLETONS)
    built_in = isinstance(ours, ast.Name) and ours.id in CLASSES
    return built_in and isinstance(theirs, ast.Call) and isinstance(theirs.func, ast.Name) and theirs.func.id == "type"
