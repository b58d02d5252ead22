"""How an exception ended a piece of a candidate's work, said without running the candidate's code."""

import builtins
import errno
import re
import resource

MAX_TEXT = 200
type_name = type.__dict__["__name__"].__get__
arguments = BaseException.__dict__["args"].__get__
BUILTIN = {kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)}
number_of = OSError.__dict__["errno"].__get__
NO_SPACE = errno.ENOSPC, errno.EFBIG, errno.EDQUOT
ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")


def outcome(error, tag=b"error"):
    """Fields of a frame: `limit`, `exit` or `tag`, then a short text."""
    kind = type(error)
    if issubclass(kind, MemoryError):
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        return b"limit", b"memory"
    if issubclass(kind, RecursionError):
        return b"limit", b"depth"
    if issubclass(kind, OSError) and type(number_of(error)) is int and number_of(error) in NO_SPACE:
        return b"limit", b"files"
    if issubclass(kind, SystemExit):
        return b"exit", b"SystemExit"
    text = type_name(kind)
    if kind in BUILTIN:
        args = arguments(error)
        if args and type(args[0]) is str:
            text += ": " + ADDRESS.sub("0x...", args[0][: 2 * MAX_TEXT])
    return tag, text[:MAX_TEXT].encode("utf-8", "backslashreplace")
