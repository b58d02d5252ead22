"""Edits of calls, statements and control flow: the kinds of bug that are on only where asked for."""

import ast

Edits = shared[b"edits"]["Edits"]
FUNCTIONS = {
    "any": ["all"], "all": ["any"], "sum": ["max", "len"], "len": ["sum", "max"], "sorted": ["list"],
    "reversed": ["list"], "set": ["list"], "list": ["set"], "tuple": ["list"], "abs": ["int"], "round": ["int"],
    "int": ["round"], "float": ["int"], "divmod": ["pow"], "enumerate": ["zip"], "filter": ["map"],
    "isinstance": ["issubclass"],
}  # fmt: skip
METHODS = {
    "append": ["extend"], "extend": ["append"], "insert": ["append"], "add": ["discard"], "upper": ["lower", "title"],
    "lower": ["upper"], "capitalize": ["title"], "strip": ["lstrip", "rstrip"], "lstrip": ["strip", "rstrip"],
    "rstrip": ["strip", "lstrip"], "replace": ["strip"], "startswith": ["endswith"], "endswith": ["startswith"],
    "find": ["rfind", "count"], "rfind": ["find"], "index": ["count"], "count": ["index", "find"], "split": ["splitlines"],
    "keys": ["values", "items"], "values": ["keys"], "items": ["keys"], "union": ["intersection"],
    "intersection": ["union", "difference"], "difference": ["intersection", "union"], "isalpha": ["isalnum", "isdigit"],
    "isdigit": ["isalnum"], "isalnum": ["isalpha"], "isupper": ["islower"], "islower": ["isupper"], "floor": ["ceil"],
    "ceil": ["floor"], "sqrt": ["floor"], "sin": ["cos"], "cos": ["sin"], "search": ["match", "fullmatch"],
    "match": ["search"], "findall": ["split"], "heappush": ["heappop"], "nlargest": ["nsmallest"],
    "nsmallest": ["nlargest"], "combinations": ["permutations"], "permutations": ["combinations"],
    "bisect": ["bisect_left"], "bisect_left": ["bisect_right"], "bisect_right": ["bisect_left"],
}  # fmt: skip
CONVERSIONS = {"int", "float", "bool", "str", "list", "set", "tuple", "sorted", "reversed", "abs", "round", "len", "sum"}
LOOPS, LEAVES = (ast.For, ast.While), (ast.Return, ast.Break, ast.Continue, ast.Raise)
SIMPLE = (ast.Expr, ast.Assign, ast.AugAssign, ast.Break, ast.Continue, ast.Return)


class StructureEdits(Edits):
    """What `Edits` finds, and edits of the kinds call, argument, statement, loop, branch, slice, type, assignment."""

    def function(self, node):
        super().function(node)
        blocks = [getattr(inner, field, None) for inner in ast.walk(node) for field in ("body", "orelse")]
        for block in blocks:
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                self.block(block)

    def is_line(self, statement):
        """Whether a statement has its lines to itself."""
        start, end = self.span(statement)
        before = self.data[self.starts[statement.lineno - 1] : start]
        return not before.strip() and self.data[end : self.starts[statement.end_lineno]] in (b"\n", b"")

    def block(self, block):
        lines = [statement for statement in block if isinstance(statement, SIMPLE) and self.is_line(statement)]
        for statement in lines:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            if len(block) > 1:
                start, end = self.starts[statement.lineno - 1], self.starts[statement.end_lineno]
                self.add("statement", start, end, "")
            else:
                self.replace("statement", statement, "pass")
        for first, second in zip(block, block[1:]):
            if first in lines and second in lines:
                (start, middle), (then, end) = self.span(first), self.span(second)
                between = self.data[middle:then].decode()
                self.add("statement", start, end, self.text(second) + between + self.text(first))

    def on_Call(self, node, scope):
        super().on_Call(node, scope)
        name = node.func
        if isinstance(name, ast.Name):
            for other in FUNCTIONS.get(name.id, []):
                self.replace("call", name, other)
            if name.id in CONVERSIONS and len(node.args) == 1 and not node.keywords:
                if not isinstance(node.args[0], (ast.Starred, ast.GeneratorExp)):
                    self.replace("type", node, self.text(node.args[0]))
        elif isinstance(name, ast.Attribute):
            end = self.span(name)[1]
            for other in METHODS.get(name.attr, []):
                self.add("call", end - len(name.attr.encode()), end, other)
        if not any(isinstance(argument, ast.Starred) for argument in node.args):
            self.arguments(node)

    def arguments(self, node):
        for first, second in zip(node.args, node.args[1:]):
            (start, middle), (then, end) = self.span(first), self.span(second)
            between = self.data[middle:then].decode()
            self.add("argument", start, end, self.text(second) + between + self.text(first))
        if len(node.args) > 1 and not node.keywords:
            self.add("argument", self.span(node.args[-2])[1], self.span(node.args[-1])[1], "")
        parts = [*node.args, *node.keywords]
        for before, keyword in zip(parts, parts[1:]):
            if isinstance(keyword, ast.keyword):
                self.add("argument", self.span(before)[1], self.span(keyword)[1], "")
        for keyword in node.keywords:
            if isinstance(keyword.value, ast.Constant) and type(keyword.value.value) is bool:
                self.replace("argument", keyword.value, str(not keyword.value.value))

    def on_While(self, node, _):
        start = self.span(node)[0]
        self.add("loop", start, start + len(b"while"), "if")
        self.leave_early(node)

    def on_For(self, node, _):
        if isinstance(node.iter, (ast.Name, ast.Subscript, ast.Attribute)):
            for part in ("[1:]", "[:-1]"):
                self.replace("loop", node.iter, self.text(node.iter) + part)
        if isinstance(node.iter, ast.Call) and getattr(node.iter.func, "id", "") == "reversed" and node.iter.args:
            self.replace("loop", node.iter, self.text(node.iter.args[0]))
        self.leave_early(node)

    def leave_early(self, loop):
        first, last = loop.body[0], loop.body[-1]
        indent = self.data[self.starts[first.lineno - 1] : self.span(first)[0]].decode()
        if not isinstance(last, LEAVES) and not indent.strip():
            end = self.starts[last.end_lineno] - 1
            self.add("loop", end, end, f"\n{indent}break")

    def on_Break(self, node, _):
        self.replace("loop", node, "continue")

    def on_Continue(self, node, _):
        self.replace("loop", node, "break")

    def on_If(self, node, scope):
        super().on_If(node, scope)
        for constant in ("True", "False"):
            self.replace("branch", node.test, constant)
        if not node.orelse:
            return
        start, end = self.span(node.body[-1])[1], self.span(node.orelse[-1])[1]
        self.add("branch", start, end, "")
        first = self.span(node.orelse[0])[0]
        if self.data[first : first + 4] == b"elif":
            self.add("branch", first, first + 4, "if")

    def on_IfExp(self, node, scope):
        super().on_IfExp(node, scope)
        body, other = self.text(node.body), self.text(node.orelse)
        for text in (body, other, f"{other} if {self.text(node.test)} else {body}"):
            self.replace("branch", node, text)

    def on_Subscript(self, node, scope):
        super().on_Subscript(node, scope)
        index, value = node.slice, node.value
        if isinstance(index, ast.Slice):
            whole = self.span(value)[1], self.span(node)[1]
            bounds = [self.text(bound) if bound else "" for bound in (index.lower, index.upper, index.step)]
            self.add("slice", *whole, "")
            for place in (0, 1):
                if bounds[place]:
                    kept = ["" if at == place else bound for at, bound in enumerate(bounds)]
                    self.add("slice", *whole, f"[{':'.join(kept[: 3 if kept[2] else 2])}]")
            if index.upper:
                self.replace("slice", index.upper, f"{bounds[1]} - 1")
        elif isinstance(index, ast.Constant) and type(index.value) is int:
            self.replace("slice", index, "-1" if index.value == 0 else f"-{index.value}")
        elif isinstance(index, ast.UnaryOp) and isinstance(index.operand, ast.Constant):
            self.replace("slice", index, self.text(index.operand))
            self.replace("slice", index, "0")
        elif isinstance(value, ast.Subscript) and not isinstance(value.slice, ast.Slice):
            start, end = self.span(value.value)[1], self.span(node)[1]
            self.add("slice", start, end, f"[{self.text(index)}][{self.text(value.slice)}]")

    def on_Return(self, node, scope):
        super().on_Return(node, scope)
        if node.value is None:
            return
        text = self.text(node.value)
        self.replace("statement", node, text)  # the value is computed and lost
        if isinstance(node.value, (ast.Tuple, ast.List)) and text[:1] in "([":
            self.replace("type", node.value, f"[{text[1:-1]}]" if text[0] == "(" else f"({text[1:-1]})")
        elif isinstance(node.value, (ast.Name, ast.Call, ast.Subscript)):
            for wrapped in (f"[{text}]", f"str({text})"):
                self.replace("type", node.value, wrapped)

    def on_AugAssign(self, node, scope):
        super().on_AugAssign(node, scope)
        start, end = self.span(node.target)[1], self.span(node.value)[0]
        self.add("assignment", start, end, " = ")

    def on_Assign(self, node, _):
        target, value = node.targets[-1], node.value
        if isinstance(target, ast.Tuple) and len(target.elts) == 2:
            for pair in (target, value):
                if isinstance(pair, ast.Tuple) and len(pair.elts) == 2:
                    (start, _), (_, end) = self.span(pair.elts[0]), self.span(pair.elts[1])
                    self.add("assignment", start, end, ", ".join(map(self.text, reversed(pair.elts))))
        elif isinstance(target, (ast.Name, ast.Subscript)) and len(node.targets) == 1:
            start, end = self.span(target)[1], self.span(value)[0]
            if self.data[start:end].strip() == b"=":
                self.add("assignment", start, end, " += ")
            if isinstance(value, ast.BinOp):
                for side in (value.left, value.right):
                    self.replace("assignment", value, self.text(side))
