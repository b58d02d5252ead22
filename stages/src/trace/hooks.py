"""How an interpreter tells a tracer what happens: `sys.settrace`, or from CPython 3.12 on `sys.monitoring`.

Both give the same calls of `enter`, `line`, `raised` and `leave`. Monitoring costs less, since it watches the
candidate's code objects only; `settrace` is the reference.
"""

import dis
import sys
import types
from _thread import get_ident

FILE = "<candidate>"
OPTIMIZED = 0x1
RETURNED, YIELDED, UNWOUND = range(3)
RETURNS = {code for name, code in dis.opmap.items() if name.startswith("RETURN_") and name != "RETURN_GENERATOR"}
RETURNS |= {code for name, code in dis.opmap.items() if name.startswith("INSTRUMENTED_RETURN")}
YIELD_FROM = dis.opmap.get("YIELD_FROM")  # 3.10 only
YIELDS = {code for name, code in dis.opmap.items() if "YIELD_VALUE" in name} | {YIELD_FROM} - {None}
ITERATIONS = {code for name, code in dis.opmap.items() if name in ("FOR_ITER", "YIELD_FROM", "SEND", "END_SEND")}
RESUME, GET_ANEXT = map(dis.opmap.get, ("RESUME", "GET_ANEXT"))


def wrapper_of_yields():
    """The type in which an async generator hands on what it yields; what it awaits comes out bare."""

    async def one():
        yield

    kinds = []

    def see(frame, event, value):
        if event == "return" and frame.f_code is one.__code__:
            kinds.append(type(value))
        return see

    sys.settrace(see)
    try:
        one().__anext__().send(None)
    except StopIteration:
        return kinds[0]
    finally:
        sys.settrace(None)


YIELD_WRAPPER = wrapper_of_yields()


class Operations:
    """The instruction that a frame stands at."""

    def __init__(self):
        self.codes = {}  # by `id`, since to hash a code object is to read all of it; each is kept, so that none is reused

    def at(self, frame):
        code, at = self.place(frame)
        return code[at] if at >= 0 else None

    def place(self, frame):
        """All instructions, and where among them it stands."""
        key = id(frame.f_code)
        if key not in self.codes:
            self.codes[key] = frame.f_code, frame.f_code.co_code
        code, at = self.codes[key][1], frame.f_lasti
        if at >= 2 and code[at] == RESUME:  # where 3.13 stands when it yields
            at -= 2
        elif YIELD_FROM and code[at + 2 : at + 3] == bytes([YIELD_FROM]):  # where 3.10 stands when it yields from
            at += 2
        return code, at

    def ends_iteration(self, error, frame):
        """Whether this exception is only how a `for`, `yield from` or `async for` learns that its iterator is done."""
        if not issubclass(type(error), (StopIteration, StopAsyncIteration)):
            return False
        code, at = self.place(frame)
        if at < 0 or code[at] not in ITERATIONS:
            return False
        # An `await` of the program's own stands at the same instruction, but after another one.
        return issubclass(type(error), StopIteration) or code[at - 4] == GET_ANEXT


def block_of(tracer, code):
    """The block that a code object executes; None for the module, False for what is part of a statement."""
    if code.co_name == "<module>":
        return None
    return tracer.program.blocks.get((code.co_firstlineno, code.co_name.split(".")[-1]), False)


def start_settrace(tracer, _, settrace=sys.settrace, gettrace=sys.gettrace):
    """Traces from now on; the function it gives ends that, and says whether it went on until then."""
    stack, operations, line = tracer.stack, Operations(), tracer.line

    def trace(frame, event, _):
        code = frame.f_code
        if code.co_filename != FILE:
            return None
        if frame.f_trace is not None:  # a generator that resumes
            return frame.f_trace
        block = block_of(tracer, code)
        if block is False:
            return None
        watch = tracer.enter(frame, block)
        return local_of(watch) if watch else deep

    def deep(frame, event, _):
        if event == "line":
            tracer.deep_step()
        return deep

    def local_of(watch):
        def local(frame, event, argument):
            if not stack or stack[-1] is not watch:  # it resumed
                stack.append(watch)
            if event == "line":
                line(watch, frame.f_lineno)
            elif event == "exception":
                if not operations.ends_iteration(argument[1], frame):
                    tracer.raised(watch, argument[1], frame.f_lineno)
            elif event == "return":
                operation = operations.at(frame)
                yields = operation in YIELDS and watch.error is None
                how = RETURNED if operation in RETURNS else YIELDED if yields else UNWOUND
                tracer.leave(watch, how, argument)
            return local

        return local

    def stop():
        went_on = gettrace() is trace
        settrace(None)
        return went_on

    settrace(trace)
    return stop


def code_objects(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from code_objects(constant)


def start_monitoring(tracer, program):
    """As `start_settrace`."""
    monitoring, getframe = sys.monitoring, sys._getframe
    tool, events = monitoring.DEBUGGER_ID, monitoring.events
    stack, suspended, operations, main = tracer.stack, {}, Operations(), get_ident()
    codes = [code for code in code_objects(program) if block_of(tracer, code) is not False]
    blocks = {id(code): block_of(tracer, code) for code in codes}
    elsewhere = lambda: tracer.threads and get_ident() != main
    step = tracer.line

    def begins(code, _):
        if not elsewhere():
            # Beyond the depth that is shown, None stands for a frame, so that its end is told from others'.
            if tracer.enter(getframe(1), blocks[id(code)]) is None:
                stack.append(None)

    def resumes(code, *_):
        if id(code) in blocks and not elsewhere():
            stack.append(suspended.pop(getframe(1), None))

    def line(code, number):
        if stack and not (tracer.threads and elsewhere()):
            watch = stack[-1]
            if watch is None:
                tracer.deep_step()
            else:
                step(watch, number)

    def jumps(code, offset, destination):
        # A jump to its own line is no event of that line for monitoring.
        watch = stack[-1] if stack else None
        if destination < offset and watch is not None and watch.place in loops and not elsewhere():
            tracer.line(watch, watch.line)

    def ends(how):
        def end(code, *argument):
            if id(code) not in blocks or not stack or elsewhere():
                return
            watch = stack[-1]
            if watch is None:
                stack.pop()
                return
            if how == YIELDED:
                suspended[watch.frame] = watch
            tracer.leave(watch, how, argument[-1])

        return end

    def raises(code, offset, error):
        if id(code) in blocks and stack and stack[-1] is not None and not elsewhere():
            watch = stack[-1]
            if not operations.ends_iteration(error, watch.frame):
                tracer.raised(watch, error, watch.frame.f_lineno)

    loops = tracer.program.one_line_loops
    callbacks = {
        events.PY_START: begins,
        events.PY_RESUME: resumes,
        events.PY_THROW: resumes,
        events.LINE: line,
        events.PY_RETURN: ends(RETURNED),
        events.PY_YIELD: ends(YIELDED),
        events.PY_UNWIND: ends(UNWOUND),
        events.RAISE: raises,
    }
    local = events.PY_START | events.PY_RESUME | events.LINE | events.PY_RETURN | events.PY_YIELD
    if loops:
        callbacks[events.JUMP] = jumps
        local |= events.JUMP
    everywhere = events.PY_THROW | events.PY_UNWIND | events.RAISE  # an interpreter tells these of all code or none
    if monitoring.get_tool(tool) is not None:  # the program's own, from while it was loaded
        monitoring.free_tool_id(tool)
    monitoring.use_tool_id(tool, "tracetune")
    for event, callback in callbacks.items():
        monitoring.register_callback(tool, event, callback)
    for code in codes:
        monitoring.set_local_events(tool, code, local)
    monitoring.set_events(tool, everywhere)

    def stop():
        went_on = monitoring.get_tool(tool) == "tracetune" and monitoring.get_events(tool) == everywhere
        if monitoring.get_tool(tool) is not None:
            monitoring.set_events(tool, 0)
            for code in codes:
                monitoring.set_local_events(tool, code, 0)
            for event in callbacks:
                monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)
        return went_on

    return stop


start = start_monitoring if hasattr(sys, "monitoring") else start_settrace
