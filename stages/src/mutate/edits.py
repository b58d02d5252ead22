"""Small edits of expressions, on the source text of one node: the kinds of bug that are on unless told otherwise."""

import ast

OPERATORS = {
    ast.Add: ["-", "*"], ast.Sub: ["+"], ast.Mult: ["+", "//"], ast.Div: ["//", "*"], ast.FloorDiv: ["%", "/"],
    ast.Mod: ["//", "+"], ast.Pow: ["*"], ast.BitAnd: ["|"], ast.BitOr: ["&"], ast.BitXor: ["|"], ast.LShift: [">>"],
    ast.RShift: ["<<"],
}  # fmt: skip
COMPARISONS = {
    ast.Lt: ["<=", ">"], ast.LtE: ["<", ">="], ast.Gt: [">=", "<"], ast.GtE: [">", "<="], ast.Eq: ["!=", "<="],
    ast.NotEq: ["==", "<"], ast.In: ["not in"], ast.NotIn: ["in"], ast.Is: ["is not"], ast.IsNot: ["is"],
}  # fmt: skip
SYMBOLS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>", ast.Lt: "<", ast.LtE: "<=",
    ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in", ast.NotIn: "not in", ast.Is: "is",
    ast.IsNot: "is not",
}  # fmt: skip
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef)


class Edits:
    """All single edits of a program, by kind: (start, end, new text), in bytes."""

    def __init__(self, source):
        self.data = source.encode()
        self.starts = [0]
        for line in self.data.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.found = []
        tree = ast.parse(source)
        self.visit(tree, None)

    def place(self, line, column):
        return self.starts[line - 1] + column

    def span(self, node):
        return self.place(node.lineno, node.col_offset), self.place(node.end_lineno, node.end_col_offset)

    def text(self, node):
        start, end = self.span(node)
        return self.data[start:end].decode()

    def add(self, kind, start, end, new):
        self.found.append((kind, start, end, new.encode()))

    def replace(self, kind, node, new):
        self.add(kind, *self.span(node), new)

    def between(self, kind, left, right, symbol, news):
        """Replaces the operator that stands between two nodes."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.data[start:end]
        if b"#" in gap or gap.count(symbol.encode()) != 1:
            return
        at = start + gap.index(symbol.encode())
        for new in news:
            self.add(kind, at, at + len(symbol), new)

    def visit(self, node, scope):
        if isinstance(node, SCOPES):
            scope = self.names_of(node)
            self.function(node)
        for field, value in ast.iter_fields(node):
            if field in ("decorator_list", "returns", "annotation", "keywords") or isinstance(node, ast.JoinedStr):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child, scope)
        if scope is not None:  # only what functions do: imports and constants of the module stay
            handler = getattr(self, "on_" + type(node).__name__, None)
            if handler:
                handler(node, scope)

    def names_of(self, function):
        arguments = function.args
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.append(node.id)
        return list(dict.fromkeys(names))

    def function(self, node):
        """A first value, and a `return` that slips into the loop before it."""
        for block in (getattr(inner, field, None) for inner in ast.walk(node) for field in ("body", "orelse")):
            if not isinstance(block, list):
                continue
            for first, second in zip(block, block[1:]):
                if isinstance(second, ast.Return) and isinstance(first, (ast.For, ast.While)) and not first.orelse:
                    if second.lineno == second.end_lineno and first.body[0].lineno > first.lineno:
                        start = self.place(second.lineno, second.col_offset)
                        self.add("return", start, start, " " * (first.body[0].col_offset - first.col_offset))
        seen_loop = False
        for statement in node.body:
            seen_loop = seen_loop or isinstance(statement, (ast.For, ast.While))
            if isinstance(statement, ast.Assign) and not seen_loop:
                self.first_value(statement)

    def first_value(self, statement):
        value = statement.value
        if isinstance(value, ast.Constant):
            if type(value.value) is bool:
                self.replace("init", value, str(not value.value))
            elif type(value.value) is int:
                for other in (value.value + 1, value.value - 1):
                    self.replace("init", value, str(other))
            elif value.value == "":
                self.replace("init", value, "' '")
        elif isinstance(value, ast.List):
            self.replace("init", value, "[0]" if not value.elts else "[]")
        elif isinstance(value, ast.Subscript):
            self.replace("init", value, "0")
        elif isinstance(value, ast.Call) and self.text(value) in ("float('inf')", 'float("inf")', "float('-inf')"):
            self.replace("init", value, "0")

    def on_BinOp(self, node, _):
        self.between("operator", node.left, node.right, SYMBOLS.get(type(node.op), "@"), OPERATORS.get(type(node.op), []))

    def on_AugAssign(self, node, _):
        symbol = SYMBOLS.get(type(node.op), "@")
        self.between("operator", node.target, node.value, symbol + "=", [new + "=" for new in OPERATORS.get(type(node.op), [])])

    def on_UnaryOp(self, node, _):
        if isinstance(node.op, (ast.USub, ast.Not)) and not isinstance(node.operand, ast.Constant):
            self.replace("operator" if isinstance(node.op, ast.USub) else "condition", node, self.text(node.operand))

    def on_Compare(self, node, _):
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators):
            kind = type(operator)
            self.between("comparison", left, right, SYMBOLS[kind], COMPARISONS[kind])

    def on_BoolOp(self, node, _):
        symbol, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self.between("operator", left, right, symbol, [other])
        if len(node.values) == 2:
            for kept in node.values:
                self.replace("condition", node, self.text(kept))

    def on_Constant(self, node, _):
        value = node.value
        if type(value) is bool:
            self.replace("constant", node, str(not value))
        elif type(value) is int:
            for other in dict.fromkeys((value + 1, value - 1 if value > 0 else value + 2)):
                self.replace("constant", node, str(other))
        elif type(value) is float:
            self.replace("constant", node, repr(value + 1.0))
        elif type(value) is str and node.lineno == node.end_lineno and self.text(node)[:1] in "'\"":
            if value in ("", " ", ",", "_", "-"):
                self.replace("constant", node, repr({"": " ", " ": ""}.get(value, " ")))

    def on_Name(self, node, scope):
        if isinstance(node.ctx, ast.Load) and node.id in scope:
            for other in scope:
                if other != node.id:
                    self.replace("variable", node, other)

    def on_Call(self, node, _):
        if not isinstance(node.func, ast.Name) or node.keywords:
            return
        if node.func.id == "range" and node.args:
            stop = node.args[0] if len(node.args) == 1 else node.args[1]
            for argument in dict.fromkeys((stop, node.args[0])):
                text = self.text(argument)
                plain = isinstance(argument, (ast.Name, ast.Constant, ast.Call, ast.Subscript, ast.Attribute))
                for change in ("+ 1", "- 1"):
                    self.replace("range", argument, f"{text} {change}" if plain else f"({text}) {change}")
            if len(node.args) == 1:
                self.replace("range", stop, f"1, {self.text(stop)}")
        elif node.func.id in ("min", "max"):
            self.replace("operator", node.func, "max" if node.func.id == "min" else "min")

    def on_Subscript(self, node, _):
        index = node.slice
        if isinstance(index, ast.Slice):
            for bound in (index.lower, index.upper):
                if bound is not None:
                    self.replace("range", bound, f"{self.text(bound)} + 1")
        elif isinstance(node.ctx, ast.Load) and isinstance(index, ast.Name):
            for change in ("+ 1", "- 1"):
                self.replace("range", index, f"{index.id} {change}")

    def condition(self, node, _):
        test = node.test
        self.replace("condition", test, f"not ({self.text(test)})" if not isinstance(test, ast.Name) else f"not {test.id}")

    on_If = on_IfExp = condition

    def on_comprehension(self, node, _):
        for test in node.ifs:
            self.replace("condition", test, f"not ({self.text(test)})")

    def on_Return(self, node, scope):
        if node.value is None:
            return
        for other in scope:
            if not isinstance(node.value, ast.Name) or other != node.value.id:
                self.replace("return", node.value, other)
        if isinstance(node.value, (ast.Compare, ast.BoolOp)):
            self.replace("return", node.value, f"not ({self.text(node.value)})")
