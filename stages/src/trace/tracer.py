"""Runs one test of a candidate and writes down each state change as it is seen, where it outlives this process.

A step is a logical line and the variables that it bound or changed, seen at the frame's next event. Lines are given as
the physical line that a comment may follow: the last of the logical line, so that no comment can land inside a
statement or a string. Only the candidate's own functions and class bodies are traced; comprehensions, generator
expressions and lambdas are part of their statement. `hooks.py` turns an interpreter's events into calls of
`Tracer.enter`, `line`, `raised` and `leave`.
"""

import gc
import io
import marshal
import mmap
import sys
import threading
import tokenize
import types

inside, script = shared[b"inside"], shared[b"script"]
renderer = shared[b"render"]["renderer"]
Program = shared[b"syntax"]["Program"]
start, start_settrace, FILE = map(shared[b"hooks"].get, ("start", "start_settrace", "FILE"))
YIELD_WRAPPER = shared[b"hooks"]["YIELD_WRAPPER"]
GENERATOR, COROUTINE, ASYNC_GENERATOR = 0x20 | 0x200, 0x80 | 0x100, 0x200
RETURNED, YIELDED, UNWOUND = range(3)
HIDDEN = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
BIG, SMALL = 10**8, -(10**7)  # between them an int has at most eight characters, the least that may be shown
ATOMS = frozenset((int, str, float, bool, type(None), bytes, complex, range))
MAX_DEPTH = 200  # frames, one in the other, that are shown
DEEP_EVENTS = 100  # calls and lines beyond that depth which cost as much as one shown statement
MISSING = object()


class Steps:
    """State changes in memory that the supervisor reads in the end, however this process ends: a system call for each
    would cost more than all else. When it is full it goes out as a frame, `steps`.

    The memory holds how many such frames went before and where its last step ends, then each step's length and text;
    numbers are 32 bits, little endian.
    """

    HEADER = 8

    def __init__(self, memory, send):
        self.memory, self.send, self.size = memory, send, len(memory)
        self.end, self.sent = self.HEADER, 0

    def add(self, text, to_bytes=int.to_bytes, length=len):
        data = text.encode("utf-8", "backslashreplace")
        data = to_bytes(length(data), 4, "little") + data
        end = self.end + length(data)
        if end > self.size:
            self.flush(data)
            return
        self.memory[self.end : end] = data
        self.memory[4:8] = to_bytes(end, 4, "little")
        self.end = end

    def flush(self, last):
        self.send(b"steps", bytes(self.memory[self.HEADER : self.end]) + last)
        self.sent, self.end = self.sent + 1, self.HEADER
        self.memory[:8] = self.sent.to_bytes(4, "little") + self.end.to_bytes(4, "little")


class Watch:
    """A frame that is watched: what of it was shown, and the statement that it executes."""

    __slots__ = ("frame", "block", "origin", "scope", "atoms", "mutable", "texts", "place", "line", "began", "error")

    def __init__(self, frame, number, block, scope):
        self.frame, self.block, self.scope = frame, block, scope
        self.origin = f" {number} {block.line if block else 0}"
        # Name to value, for values known by their identity; names of other values; name to text, for all.
        self.atoms, self.mutable, self.texts = {}, {}, {}
        self.place = self.line = self.error = None
        self.began = -1  # the instruction at which the statement began


class Tracer:
    """Follows a run: `stack` holds the watched frames, the innermost last."""

    def __init__(self, program, steps, render, max_events, every, leave):
        self.program, self.places = program, program.places
        self.steps, self.send, self.render, self.exit, self.every = steps, steps.send, render, leave, every
        self.max_events = self.events_left = max_events
        self.deep_left, self.deep_calls, self.deep_told = max_events * DEEP_EVENTS, 0, 0
        self.stack, self.frames, self.shown_error = [], 0, None
        self.printed, self.threads = "", False

    def step(self, watch, place, changes):
        # Neither names nor rendered values hold a zero character.
        text = f"{place}{watch.origin}"
        for name, value in changes:
            text += f"\0{name}\0{value}"
        self.steps.add(text)

    def count(self):
        self.events_left -= 1
        if self.events_left < 0:
            if self.deep_calls > self.deep_told:
                self.tell_deep_calls()
            self.truncate()

    def truncate(self, mark=b"stopped after %d statements", most=0):
        self.send(b"truncated")
        self.send(b"mark", mark % (most or self.max_events))
        self.send(b"done")
        self.exit(0)

    def enter(self, frame, block):
        """A call: the watch of its frame, or None beyond the depth that is shown."""
        if len(self.stack) >= MAX_DEPTH:
            if not self.deep_calls:  # said at once, as the process may end without another word
                self.send(b"deep", b"%d" % MAX_DEPTH)
            self.deep_calls += 1
            self.deep_step()
            return None
        watch = Watch(frame, self.frames, block, block or self.program)
        self.frames += 1
        self.stack.append(watch)
        if block and not block.is_class:
            self.count()
            shown = [change for change in self.changes(watch, block.given) if change[0] in block.arguments]
            if shown or self.every:
                self.step(watch, block.header, shown)
        return watch

    def deep_step(self):
        """A call or a line beyond the depth that is shown."""
        self.deep_left -= 1
        if self.deep_left < 0:
            self.truncate(b"stopped after %d steps of calls that are not shown", self.max_events * DEEP_EVENTS)

    def tell_deep_calls(self):
        """How many calls were too deep; after an overflow that depends on the interpreter's own frames."""
        self.deep_told = self.deep_calls
        if type(self.shown_error) is not RecursionError:
            self.send(b"deep", b"%d" % MAX_DEPTH, b"%d" % self.deep_calls)

    def line(self, watch, line):
        """The line is about to run."""
        place, at = self.places.get(line, line), watch.frame.f_lasti
        if place == watch.place:
            # Within a statement only a jump back to where it began is a new execution of it.
            if at > watch.began and place not in self.program.one_line_loops:
                return
        self.count()
        if watch.place is not None:
            self.finish(watch)
        watch.place, watch.line, watch.began = place, line, at

    def finish(self, watch):
        """Shows what the statement that ran has done: to the names that it binds, and to what can change in place."""
        scope, mutable = watch.scope, watch.mutable
        names = scope.bound.get(watch.place, scope.anywhere)
        inert = self.program.inert.get(watch.place)
        if mutable and inert is not True and inert not in watch.atoms:
            names = names | mutable if type(names) is dict else [*names, *(name for name in mutable if name not in names)]
        found = self.changes(watch, names) if names else []
        if len(found) > 1:
            found.sort(key=lambda change: scope.order(change[0]))
        if self.printed:
            found.append(("__out__", self.render(self.printed)))
            self.printed = ""
        if found or self.every:
            self.step(watch, watch.place, found)
        if watch.error is not None:  # and caught
            self.show_error(watch, *watch.error)
            watch.error = None

    def show_error(self, watch, error, place):
        """An exception shows once, where it was raised; a generator that is closed is no error."""
        if error is not self.shown_error and not issubclass(type(error), GeneratorExit):
            self.shown_error = error
            self.step(watch, place, [("__exception__", self.render(error))])

    def raised(self, watch, error, line):
        watch.error = error, self.places.get(line, line)

    def leave(self, watch, how, value):
        """The frame returns, yields or is unwound by an exception."""
        error, watch.error = watch.error, None
        if watch.place is not None:
            self.finish(watch)
        block, flags, place = watch.block, watch.frame.f_code.co_flags, self.place_of(watch)
        if how == RETURNED:
            silent = flags & (GENERATOR | COROUTINE) or block and block.name == "__init__"
            if block and not block.is_class and not (value is None and silent):
                self.step(watch, place, [("__return__", self.render(value))])
        elif how == YIELDED:
            if flags & ASYNC_GENERATOR:
                if type(value) is YIELD_WRAPPER:
                    self.step(watch, place, [("__yield__", self.render(*gc.get_referents(value)))])
            elif flags & GENERATOR:
                self.step(watch, place, [("__yield__", self.render(value))])
        elif error is not None:
            self.show_error(watch, *error)
        self.stack.pop()
        if self.deep_calls > self.deep_told and not self.stack:
            self.tell_deep_calls()

    def place_of(self, watch):
        line = watch.frame.f_lineno
        return self.places.get(line, line)

    def changes(self, watch, names):
        """Which of the names became different, as pairs of name and text; a deleted variable has an empty text."""
        found, atoms, mutable, texts, render = [], watch.atoms, watch.mutable, watch.texts, self.render
        space = watch.frame.f_locals
        if watch.block and watch.block.globals:
            outer = watch.frame.f_globals
            space = {**space, **{name: outer[name] for name in watch.block.globals if name in outer}}
        get = space.get
        for name in names:
            value = get(name, MISSING)
            if value is MISSING:
                if texts.pop(name, None):
                    atoms.pop(name, None)
                    mutable.pop(name, None)
                    if name not in watch.scope.handled:
                        found.append((name, ""))
                continue
            if value is atoms.get(name, MISSING):
                continue
            kind = type(value)
            if kind in ATOMS:
                atoms[name] = value
                mutable.pop(name, None)
            else:
                atoms.pop(name, None)
                if issubclass(kind, HIDDEN):
                    mutable.pop(name, None)
                    texts.pop(name, None)
                    continue
                mutable[name] = None
            text = repr(value) if kind is int and SMALL < value < BIG else render(value)
            if texts.get(name) != text:
                texts[name] = text
                found.append((name, text))
        return found

    def show_overflow(self, error):
        """The stack was full, so the interpreter had no room to tell us: the traceback knows where."""
        at, traceback = None, error.__traceback__
        while traceback:
            code = traceback.tb_frame.f_code
            # A frame that could not even begin stands at its `def`; the call of it is what failed.
            if code.co_filename == FILE and (at is None or traceback.tb_lineno != code.co_firstlineno):
                at = traceback
            traceback = traceback.tb_next
        if at:
            watch = Watch(at.tb_frame, self.frames, None, self.program)
            self.show_error(watch, error, self.places.get(at.tb_lineno, at.tb_lineno))


class Printed(io.TextIOWrapper):
    """Standard output that also tells the tracer what was written."""

    def write(self, text):
        if type(text) is str and len(self.tracer.printed) < self.most:
            self.tracer.printed += text[: self.most]
        return super().write(text)


def capture_output(tracer, most):
    for name in ("stdout", "stderr"):
        if not hasattr(getattr(sys, name), "buffer"):  # a script's error output goes nowhere
            continue
        stream = Printed(getattr(sys, name).buffer, encoding="utf-8", errors="backslashreplace", write_through=True)
        stream.tracer, stream.most = tracer, most
        setattr(sys, name, stream)


def said(error):
    """The compiler's words, and the line that they are about; 0 if it names none."""
    text = error.msg if isinstance(error, SyntaxError) else f"{type(error).__name__}: {error}"
    return str(text).encode("utf-8", "backslashreplace"), b"%d" % (getattr(error, "lineno", None) or 0)


class Finished(BaseException):
    """What was to be traced has been."""


class Window:
    """The reports (`inside.py`) of the traced unit between which it is traced: after `begin` of them, up to the one numbered
    `end`; 0 is the unit's start, -1 its end. `got` is the value of the last report in it."""

    def __init__(self, begin, end, start, stop):
        self.begin, self.end, self.start, self.stop = begin, end, start, stop
        self.count, self.got = 0, MISSING

    def report(self, site, operand, value):
        self.count += 1
        if self.count == self.end:
            self.stop()
            self.got = value
            raise Finished
        if self.count == self.begin:
            self.start()


def compiled(text, mode):
    return compile(text.decode(), "<test>", "eval" if mode == b"value" else "exec", dont_inherit=True)


def run(job, send, memory=None):
    """The job: the program, its prelude, bounds, flags, the window, then units as in `inside.py`, of which the last is traced.
    Its mode may also be `text value` or `text exec`, for a call that is not compiled yet, or `script`, for the program itself with
    that input; without units the program's loading is traced."""
    source, prelude, max_events, value_chars, value_items, every, reference, begin, end, *units = job
    source = source.decode()
    try:
        code = compile(source, FILE, "exec", dont_inherit=True)
        program = Program(source)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError, tokenize.TokenError) as error:
        return send(b"invalid", *said(error))
    mode = units[-3] if units else b"load"
    try:
        if mode.startswith(b"text "):
            mode = mode[5:]
            units[-3:-1] = mode, marshal.dumps(compiled(units[-2], mode))
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        return send(b"invalid_call", *said(error))
    send(b"blocks", *(block.fields() for block in program.blocks.values()))
    if mode == b"script":
        script["give_input"](units[1])
        script["streams"]()
    before, traced_unit = [], None
    if units and mode != b"script":
        *before, traced_unit = inside["read_units"](units)
    render = renderer(int(value_chars), int(value_items))
    show = renderer(max(int(value_chars), 200), max(int(value_items), 50))
    steps = Steps(memory or mmap.mmap(shared[b"frames"]["LINK"], 0), send)
    tracer = Tracer(program, steps, render, int(max_events), every == b"1", __import__("os")._exit)
    if memory is None:
        capture_output(tracer, int(value_chars))
    tracing = Tracing(tracer, code, start_settrace if reference == b"1" else start, send)
    send(b"begin")
    got = lambda value: send(b"got", show(value).encode("utf-8", "backslashreplace"))
    try:
        if mode == b"script":
            space = script["main_module"](prelude)
            flush = sys.stdout.flush
            try:
                tracing.run(lambda: exec(code, space))
            finally:
                flush()
            return send(b"done")
        module = type(sys)("candidate")
        sys.modules["candidate"] = module
        space = module.__dict__
        if prelude:
            exec(compile(prelude.decode(), "<prelude>", "exec", dont_inherit=True), space)
        if traced_unit is None:
            tracing.run(lambda: exec(code, space))
            return send(b"done")
        exec(code, space)
        reports = inside["Reports"](lambda *frame: None, [1 << 24, 1 << 20, 400])
        space.update(__h__=reports.report, __case__=inside["run_case"], __run__=inside["run_coroutine"])
        for unit in before:
            inside["run_unit"](*unit, space, reports)
        trace_unit(traced_unit, space, tracing, int(begin), int(end), got)
    except SystemExit as error:
        if mode != b"script" or error.code not in (None, 0):
            send(b"exit")
            got(error)
    except BaseException as error:
        got(error)
    send(b"done")


def trace_unit(unit, space, tracing, begin, end, got, exec=exec, eval=eval):
    mode, code, _ = unit
    if mode == b"value":
        return got(tracing.run(lambda: eval(code, space)))
    window = Window(begin, end, tracing.start, tracing.stop)
    space["__h__"] = window.report
    try:
        if begin == 0:
            tracing.run(lambda: exec(code, space))
        else:
            exec(code, space)
    except Finished:
        got(window.got)
    finally:
        tracing.stop()


class Tracing:
    """Switches the tracing of a program's code on and off."""

    def __init__(self, tracer, code, start, send):
        self.tracer, self.code, self.start_tracer, self.send = tracer, code, start, send
        self.end = None

    def start(self):
        def other_thread(*_):
            self.tracer.threads = True
            sys.settrace(None)

        threading.settrace(other_thread)
        self.tracer.printed = ""
        self.end = self.start_tracer(self.tracer, self.code)

    def stop(self):
        if self.end is None:
            return
        end, self.end = self.end, None
        threading.settrace(None)
        if not end():
            self.send(b"mark", b"tracing was switched off by the program")
        if self.tracer.threads:
            self.send(b"mark", b"other threads than the main one were not traced")

    def run(self, work):
        self.start()
        try:
            return work()
        except RecursionError as error:
            end, self.end = self.end, lambda: True
            end()
            self.tracer.show_overflow(error)
            raise
        finally:
            self.stop()


def warm_up():
    """Runs once in the fork server: what this compiles and loads, no child has to."""
    source = b"def f(x):\n    y = [x, 'a', 1.5, {x: None}, {2}]\n    return y\n"
    for _ in range(9):
        unit = b"text value", b"f(1)", b"-1"
        run((source, b"", b"100", b"80", b"20", b"0", b"0", b"0", b"-1", *unit), lambda *frame: None, bytearray(1 << 12))
    del sys.modules["candidate"]


warm_up()
