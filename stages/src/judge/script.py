"""Runs a whole program as `__main__`, with its standard input; what it prints goes to the supervisor.

The job is (source, prelude, input). Its last frame is `end`, or an exception.
"""

import io
import os
import sys

outcome = shared[b"outcome"]["outcome"]
PIPE = 1 << 16  # what a pipe holds that nobody reads yet


def give_input(data):
    """Makes descriptor 0 one from which the data can be read."""
    if len(data) <= PIPE:
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
    else:
        with open("stdin", "wb") as file:
            file.write(data)
        reader = os.open("stdin", os.O_RDONLY)
        os.unlink("stdin")
    os.dup2(reader, 0)
    os.close(reader)


def discard_errors():
    """What a program says on its error output is not its answer."""
    try:
        sink = os.open("/dev/null", os.O_WRONLY)
    except OSError:  # behind a wall that lets nothing be written: a pipe that nobody reads
        reader, sink = os.pipe()
        os.close(reader)
    os.dup2(sink, 2)
    os.close(sink)


class Discard(io.TextIOBase):
    def write(self, text):
        return len(text)


def streams():
    text = lambda number, mode, **more: io.TextIOWrapper(open(number, mode, closefd=False), encoding="utf-8", **more)
    sys.stdin = sys.__stdin__ = text(0, "rb")
    sys.stdout = sys.__stdout__ = text(1, "wb", errors="backslashreplace")
    sys.stderr = sys.__stderr__ = Discard()


def main_module(prelude):
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["main.py"]
    if prelude:
        exec(compile(prelude.decode(), "<prelude>", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def finish(flush):
    """What the interpreter does at its end."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
    flush()


def run(job, send, exec=exec, os_exit=os._exit):
    source, prelude, data = job
    try:
        program = compile(source.decode(), "<candidate>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        send(b"invalid", type(error).__name__.encode())
        return send(b"done")
    discard_errors()
    try:
        give_input(data)
    except OSError as error:
        send(b"limit", b"input of more than 65536 bytes needs `scratch_bytes`: " + str(error).encode())
        return send(b"done")
    streams()
    output = sys.stdout
    send(b"begin")
    try:
        exec(program, main_module(prelude))
        finish(output.flush)
    except SystemExit as error:
        if error.code not in (None, 0):
            send(b"error", b"SystemExit: " + str(error.code)[:100].encode("utf-8", "backslashreplace"))
            return send(b"done")
        finish(output.flush)
    except BaseException as error:
        send(*outcome(error))
        return send(b"done")
    send(b"end")
    send(b"done")
