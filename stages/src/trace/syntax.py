"""What is known of a program before it runs: its logical lines, its functions and classes, and the names they bind."""

import ast
import io
import tokenize

inert_places = shared[b"inert"]["inert_places"]
SKIPPED = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def logical_lines(source):
    """For each physical line the last one of its logical line, after which a comment about it stands."""
    places, first = {}, None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in SKIPPED:
            continue
        if first is None:
            first = token.start[0]
        if token.type == tokenize.NEWLINE:
            for line in range(first, token.start[0] + 1):
                places[line] = token.start[0]
            first = None
    return places


class Scope:
    """The names of a body in the order of the source, and at which statements each may be bound anew."""

    def __init__(self, body, arguments, places, is_function):
        own = list(walk_own(body))
        self.names = list(dict.fromkeys([*arguments, *(name for name, _ in bound_names(own))]))
        self.globals = {name for inner in own if isinstance(inner, ast.Global) for name in inner.names}
        # Names that Python itself deletes at the end of their handlers.
        self.handled = {node.name for node in own if isinstance(node, ast.ExceptHandler) and node.name}
        self.order = {name: place for place, name in enumerate(self.names)}.__getitem__
        self.anywhere = self.names
        if is_function:
            elsewhere = self.globals | self.handled | set(rebound_names(body, own))
            self.anywhere = [name for name in self.names if name in elsewhere]
        self.bound = {}
        for name, line in bound_names(own):
            names = self.bound.setdefault(places.get(line, line), dict.fromkeys(self.anywhere))
            names[name] = None


class Block(Scope):
    """A function's or a class's body: its lines and its names."""

    def __init__(self, node, places):
        self.name = node.name
        self.line = node.lineno
        self.start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        self.header, self.end = places.get(node.lineno, node.lineno), node.end_lineno
        self.is_class = isinstance(node, ast.ClassDef)
        self.arguments = []
        if not self.is_class:
            given = node.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            self.arguments = [argument.arg for argument in named if argument]
        super().__init__(node.body, self.arguments, places, not self.is_class)
        self.given = list(dict.fromkeys([*self.arguments, *self.anywhere]))  # what may have a value when it is called

    def fields(self):
        words = (self.start, self.line, self.header, self.end, "class" if self.is_class else "def", self.name)
        return " ".join(map(str, words)).encode("utf-8", "backslashreplace")


class Program(Scope):
    """A parsed program. SyntaxError and its like if it is none."""

    def __init__(self, source):
        tree = ast.parse(source)
        self.places = logical_lines(source)
        super().__init__(tree.body, [], self.places, False)
        self.inert = inert_places(tree, self.places)
        nodes = [node for node in ast.walk(tree) if isinstance(node, (*FUNCTIONS, ast.ClassDef))]
        # A code object starts at the first decorator.
        self.blocks = {(block.start, block.name): block for block in (Block(node, self.places) for node in nodes)}
        # Loops with their body on the header's line: there a jump back is a new execution of the line, unless it may be
        # a comprehension's own, which some versions run in a frame of its own and others in place.
        self.one_line_loops = {
            self.places.get(node.lineno)
            for node in ast.walk(tree)
            if isinstance(node, (ast.For, ast.AsyncFor, ast.While))
            and self.places.get(node.lineno) == self.places.get(node.body[0].lineno)
            and not any(isinstance(inner, COMPREHENSIONS) for inner in ast.walk(node))
        }


def walk_own(body):
    """The nodes of a body without those of functions, classes and comprehensions in it."""
    for node in body:
        yield node
        if isinstance(node, COMPREHENSIONS):
            # An assignment expression in a comprehension binds outside of it.
            yield from (inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
        elif not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            yield from walk_own(ast.iter_child_nodes(node))


def bound_names(nodes):
    """Names with the lines where they are bound or deleted."""
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names = [node.id]
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            names = [node.name]
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            names = node.names
        elif isinstance(node, ast.MatchMapping):
            names = [node.rest]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name)


def rebound_names(body, own):
    """Names of a function that something else than a statement about variables may bind."""
    for node in own:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
    for statement in body:
        yield from (name for node in ast.walk(statement) if isinstance(node, ast.Nonlocal) for name in node.names)
