"""Tests in one process, the program under test in another: for tests that are not `call == literal`.

`serve` loads the program and does what it is asked over the link; `judge` runs the tests, in which the program's names
are handles. What crosses the link are values of built-in types, copied, and numbers of what is of other types. So no
`==` of the program's own decides anything, and it sees of a test what its functions are called with.
"""

import builtins
import operator
import sys

encode, decode = shared[b"encode"]["encode"], shared[b"decode"]["decode"]
counted_name, name_of = shared[b"encode"]["counted_name"], shared[b"encode"]["name_of"]
mro_of, TooLarge = shared[b"encode"]["mro_of"], shared[b"encode"]["TooLarge"]
outcome, BUILTIN = shared[b"outcome"]["outcome"], shared[b"outcome"]["BUILTIN"]
read, send_link = shared[b"frames"]["read"], shared[b"frames"]["send"]
load, read_tests, run_tests = (shared[b"verify"][name] for name in ("load", "read_tests", "run_tests"))
BUILTIN_NAMES = {kind.__name__: kind for kind in BUILTIN}
APPLY = {
    "len": len, "list": list, "bool": bool, "str": str, "repr": repr, "int": int, "float": float, "next": next,
    "getitem": operator.getitem, "setitem": operator.setitem,
    "isinstance": lambda kind, value: isinstance(value, kind),
}  # fmt: skip
CHANGING = (list, dict, set)
NO_KEYWORDS = encode({})


def serve(job, send):
    """The job is the source. Requests are (verb, number, name, keyword arguments, arguments...)."""
    space = load(job[0], send)
    if space is None:
        return
    objects = [space]

    def number_of(value):
        objects.append(value)
        return b"h%d;%d:%s" % (len(objects) - 1, *counted_name(value))

    def pack(value):
        return encode(value, number_of)

    def answer(verb, number, name, keywords, *sent):
        target, name = objects[int(number)], name.decode()
        unpack = lambda data: decode(data, lambda number, _: objects[number])
        arguments = [unpack(data) for data in sent]
        if verb == b"name":
            if name not in target:
                return (b"missing",)
            value = target[name]
            if isinstance(value, type(sys)):
                return b"module", value.__name__.encode()
            if isinstance(value, type) and issubclass(value, BaseException):
                return b"exception", base_name(value)
        elif verb == b"get":
            value = getattr(target, name)
        elif verb == b"apply":
            value = APPLY[name](target, *arguments)
        else:
            value = target(*arguments, **(unpack(keywords) if keywords != NO_KEYWORDS else {}))
        changed = []
        for place, (data, argument) in enumerate(zip(sent, arguments)):
            if type(argument) in CHANGING and (after := pack(argument)) != data:
                changed += b"%d" % place, after
        return b"value", pack(value), *changed

    while True:
        try:
            request = read()
        except EOFError:
            return send(b"done")
        try:
            reply = answer(*request)
        except TooLarge:
            reply = b"limit", b"value"
        except BaseException as error:
            reply = *outcome(error), base_name(type(error))
        send_link(*reply)


def base_name(kind):
    """The built-in exception that it is or comes from."""
    return next(name_of(ancestor) for ancestor in mro_of(kind) if ancestor in BUILTIN).encode()


class Relayed(BaseException):
    """Ends a test with the fields that say how."""


class Stopped(BaseException):
    """Ends the tests: `gone`, the program's process is; `opaque`, an argument can't be sent."""


class Found(tuple):
    """What a name of the program is, where that is neither a value nor a handle."""


class Handle:
    """Something of the program's own: equal to itself only; no comparison and no arithmetic, which it could forge."""

    __slots__ = ("_tracetune_number", "_tracetune_name")

    def __init__(self, number, name):
        self._tracetune_number, self._tracetune_name = number, name

    def __call__(self, *arguments, **keywords):
        return ask(b"call", self, "", arguments, keywords)

    def __getattr__(self, name):
        return ask(b"get", self, name)

    def __iter__(self):
        return iter(ask(b"apply", self, "list"))

    def __instancecheck__(self, value):
        return type(value) is Handle and ask(b"apply", self, "isinstance", (value,))


def applied(name):
    return lambda self, *arguments: ask(b"apply", self, name, arguments)


for name in APPLY.keys() - {"list", "isinstance"}:
    setattr(Handle, f"__{name}__", applied(name))


def pack(value):
    def number_of(value):
        if type(value) is not Handle:
            raise Stopped(b"opaque")
        return b"h%d;0:" % value._tracetune_number

    return encode(value, number_of)


def ask(verb, target, name, arguments=(), keywords={}):
    try:
        request = verb, b"%d" % target._tracetune_number, name.encode(), keywords and pack(keywords) or NO_KEYWORDS, *map(pack, arguments)
    except TooLarge:
        raise Stopped(b"opaque") from None
    try:
        send_link(*request)
        tag, *fields = read()
        if tag == b"value":
            value, *changed = (decode(data, Handle) if place % 2 == 0 else int(data) for place, data in enumerate(fields))
            for place, now in zip(changed[::2], changed[1::2]):
                update(arguments[place], now)
            return value
        if tag in (b"missing", b"module", b"exception") and verb == b"name":
            return Found(field.decode() for field in (tag, *fields))
        text = fields[0].decode()
        base = BUILTIN_NAMES[fields[1].decode()] if tag == b"error" else None
    except (OSError, EOFError, ValueError, LookupError, TypeError, RecursionError, MemoryError):
        raise Stopped(b"gone") from None
    if base is None:
        raise Relayed(tag, *fields[:1])
    kind, _, message = text.partition(": ")
    try:
        error = exception(kind, base)(*([message] if message else []))
    except TypeError:
        error = exception(kind, Exception)(message)
    raise error


def update(argument, now):
    if type(argument) is list:
        argument[:] = now
    elif type(argument) in (dict, set):
        argument.clear()
        argument.update(now)


def exception(name, base, made={}):
    """The built-in exception `name`, or one made after the program's."""
    if BUILTIN_NAMES.get(name) is base:
        return base
    if (name, base) not in made:
        made[name, base] = type(name, (base,), {})
    return made[name, base]


def names_in(code):
    inner = [names_in(constant) for constant in code.co_consts if type(constant) is type(code)]
    return set(code.co_names).union(*inner)


def resolve(name, program):
    """What `name` of the program is in a test; nothing there may take a built-in function's place."""
    found = ask(b"name", program, name)
    if type(found) is not Found:
        return found
    tag, *what = found
    if tag == "module" and what[0].split(".")[-1] == name:
        return __import__(what[0], fromlist=["*"])
    if tag == "exception":
        return exception(name, BUILTIN_NAMES.get(what[0], Exception))
    raise KeyError(name)


def shown(value):
    """A result to be compared outside, where a handle equals nothing."""
    name = lambda value: (value._tracetune_name if type(value) is Handle else type(value).__name__).encode()
    return encode(value, lambda value: b"o%d:%s" % (len(name(value)), name(value)))


def judge(job, send):
    """The job is the setup and the tests; `gone` or `opaque` comes back in a test's place if it can't be run here."""
    setup, *tests = job
    tests = read_tests(tests)
    setup = compile(setup.decode(), "<setup>", "exec", dont_inherit=True)
    send(b"begin")
    try:
        space, program = {"__name__": "tests"}, Handle(0, "module")
        for name in sorted(set().union(names_in(setup), *(names_in(code) for _, code in tests))):
            if not hasattr(builtins, name):
                try:
                    space[name] = resolve(name, program)
                except (KeyError, ImportError):
                    pass
        run_tests(setup, tests, space, send, shown, relayed=Relayed, stopped=Stopped)
    except Stopped as stopped:
        send(*stopped.args)
    send(b"done")


def run(job, send):
    (serve if job[0] == b"serve" else judge)(job[1:], send)
