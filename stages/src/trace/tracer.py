"""Runs one test of a candidate and sends each state change, a frame each: (step, line, text).

A step is a statement and the variables that it bound or changed, seen at the frame's next event. Lines are given as
the physical line that a comment may follow: the last of the logical line, so that no comment can land inside a
statement or a string. Only the candidate's own functions are traced; comprehensions, generator expressions and
lambdas are part of their statement.
"""

import ast
import dis
import io
import sys
import tokenize
import types

outcome = shared[b"outcome"]["outcome"]
renderer = shared[b"render"]["renderer"]
FILE = "<candidate>"
OPTIMIZED, GENERATOR, COROUTINE = 0x1, 0x20 | 0x200, 0x80 | 0x100
RETURNS = {code for name, code in dis.opmap.items() if name.startswith("RETURN_") and name != "RETURN_GENERATOR"}
RETURNS |= {code for name, code in dis.opmap.items() if name.startswith("INSTRUMENTED_RETURN")}
YIELDS = {code for name, code in dis.opmap.items() if "YIELD_VALUE" in name}
RESUME = dis.opmap.get("RESUME")
HIDDEN = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
ATOMS = (int, str, float, bool, type(None), bytes, complex)


def comment_lines(source):
    """For each physical line the one after which a comment about it stands."""
    places, first = {}, None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            continue
        if first is None:
            first = token.start[0]
        if token.type == tokenize.NEWLINE:
            for line in range(first, token.start[0] + 1):
                places[line] = token.start[0]
            first = None
    return places


class Function:
    """What is known of a function before it runs: its `def` line and its names in the order of the source."""

    def __init__(self, node):
        self.line = node.lineno
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        self.arguments = [argument.arg for argument in (*named, arguments.vararg, arguments.kwarg) if argument]
        self.names = list(dict.fromkeys([*self.arguments, *bound_names(node.body)]))
        self.globals = {name for child in walk_own(node.body) if isinstance(child, ast.Global) for name in child.names}


def walk_own(body):
    """The nodes of a body without those of functions, classes and comprehensions in it."""
    for node in body:
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp,
                             ast.DictComp, ast.GeneratorExp)):  # fmt: skip
            for inner in ast.walk(node):  # an assignment expression in a comprehension binds outside of it
                if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
                    if isinstance(inner, ast.NamedExpr):
                        yield inner.target
            continue
        yield from walk_own(ast.iter_child_nodes(node))


def bound_names(body):
    for node in walk_own(body):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            yield from node.names
        elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest


def functions_of(tree):
    """Functions by the line their code object starts at (the first decorator's) and their name."""
    functions = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            functions[start, node.name] = Function(node)
    return functions


class Tracer:
    def __init__(self, tree, places, send, render, max_events):
        self.functions = functions_of(tree)
        self.module_names = list(dict.fromkeys(bound_names(tree.body)))
        self.places, self.send, self.render = places, send, render
        self.events_left = max_events
        self.shown_error = None
        self.opcodes = {}

    def step(self, line, changes):
        place = self.places.get(line, line)
        text = " ".join(f"{name}={value};" for name, value in changes)
        self.send(b"step", b"%d" % place, text.encode("utf-8", "backslashreplace"))

    def count(self):
        self.events_left -= 1
        if self.events_left < 0:
            sys.settrace(None)
            self.send(b"truncated")
            self.send(b"done")
            self.leave(0)

    def trace(self, frame, event, _):
        """The global trace function: decides for each new frame whether it is watched."""
        code = frame.f_code
        if code.co_filename != FILE:
            return None
        if frame.f_trace is not None:  # a generator that resumes
            return frame.f_trace
        if code.co_name == "<module>":
            return self.watch(frame, None)
        if code.co_name[0] == "<" or not code.co_flags & OPTIMIZED:
            return None
        function = self.functions.get((code.co_firstlineno, code.co_name.split(".")[-1]))
        return self.watch(frame, function) if function else None

    def watch(self, frame, function):
        names = function.names if function else self.module_names
        outer = function.globals if function else ()
        known = {}
        line = None
        unwinding = None

        def changes(frame):
            found, space = [], frame.f_locals
            for name in names:
                where = frame.f_globals if name in outer else space
                if name not in where:
                    known.pop(name, None)
                    continue
                value = where[name]
                last = known.get(name)
                if last is not None and last[0] is value and type(value) in ATOMS:
                    continue
                if issubclass(type(value), HIDDEN):
                    known.pop(name, None)
                    continue
                text = self.render(value)
                if last is None or last[1] != text:
                    found.append((name, text))
                known[name] = value, text
            return found

        def local(frame, event, argument):
            nonlocal line, unwinding
            if event == "line":
                self.count()
                found = changes(frame)
                if found and line is not None:
                    self.step(line, found)
                line, unwinding = frame.f_lineno, None
            elif event == "exception":
                unwinding = argument[1], frame.f_lineno
            elif event == "return":
                found = changes(frame)
                if found and line is not None:
                    self.step(line, found)
                operation = self.operation(frame)
                if operation in RETURNS:
                    silent = frame.f_code.co_flags & (GENERATOR | COROUTINE) or frame.f_code.co_name == "__init__"
                    if function and not (argument is None and silent):
                        self.step(frame.f_lineno, [("__return__", self.render(argument))])
                elif operation in YIELDS:
                    if frame.f_code.co_flags & GENERATOR and unwinding is None:
                        self.step(frame.f_lineno, [("__yield__", self.render(argument))])
                elif unwinding and unwinding[0] is not self.shown_error:
                    self.shown_error = unwinding[0]
                    self.step(unwinding[1], [("__exception__", self.render(unwinding[0]))])
            return local

        if function:
            self.count()
            arguments = changes(frame)
            shown = [(name, text) for name, text in arguments if name in function.arguments]
            if shown:
                self.step(function.line, shown)
        return local

    def operation(self, frame):
        code = frame.f_code
        if code not in self.opcodes:
            self.opcodes[code] = code.co_code
        at = frame.f_lasti
        if at >= 2 and self.opcodes[code][at] == RESUME:  # where 3.13 stands when it yields
            at -= 2
        return self.opcodes[code][at] if at >= 0 else None


def run(job, send, settrace=sys.settrace, exec=exec, eval=eval):
    source, setup, mode, test, max_events, value_chars, value_items = job
    source = source.decode()
    try:
        program = compile(source, FILE, "exec", dont_inherit=True)
        tree = ast.parse(source)
        places = comment_lines(source)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError, tokenize.TokenError) as error:
        return send(b"invalid", type(error).__name__.encode())
    render = renderer(int(value_chars), int(value_items))
    show = renderer(max(int(value_chars), 200), max(int(value_items), 50))
    tracer = Tracer(tree, places, send, render, int(max_events))
    tracer.leave = __import__("os")._exit
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    space = module.__dict__
    send(b"begin")

    def ended(error):
        settrace(None)
        found = outcome(error)
        if found[0] == b"exit":
            send(b"exit")
        send(b"got", show(error).encode("utf-8", "backslashreplace"))

    try:
        if mode == b"load":
            settrace(tracer.trace)
        try:
            exec(program, space)
        finally:
            settrace(None)
        if mode == b"load":
            return send(b"done")
        if setup:
            exec(compile(setup.decode(), "<setup>", "exec", dont_inherit=True), space)
        code = compile(test.decode(), "<test>", "exec" if mode == b"exec" else "eval", dont_inherit=True)
        settrace(tracer.trace)
        try:
            value = exec(code, space) if mode == b"exec" else eval(code, space)
        finally:
            settrace(None)
        if mode != b"exec":
            send(b"got", show(value).encode("utf-8", "backslashreplace"))
    except BaseException as error:
        ended(error)
    send(b"done")


def warm_up():
    """Runs once in the fork server: what this compiles and loads, no child has to."""
    source = "def f(x):\n    y = [x, 'a', 1.5, {x: None}, {2}]\n    return y\n"
    for _ in range(9):
        frames = []
        run((source.encode(), b"", b"value", b"f(1)", b"100", b"80", b"20"), lambda *frame: frames.append(frame))
    del sys.modules["candidate"]


warm_up()
