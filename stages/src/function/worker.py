"""Calls a function of the user's for rows that come over a socket, until it closes.

Frames are a length (8 bytes, little-endian) and that many bytes: the first one is JSON that says what to call, the others
are `marshal` of version 2, which every CPython reads and writes. The socket is the process's standard input and output; what the
function prints goes to its standard error.
"""

import hashlib
import importlib
import json
import marshal
import operator
import os
import sys
import time
import types
from importlib.machinery import PathFinder, SourceFileLoader

SOCKET = os.dup(1)
os.dup2(2, 1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
INPUT, OUTPUT = os.fdopen(SOCKET, "rb"), os.fdopen(os.dup(SOCKET), "wb")
LONGEST_MESSAGE = 4000
OWN = "<string>"


def receive():
    size = INPUT.read(8)
    return INPUT.read(int.from_bytes(size, "little")) if len(size) == 8 else None


def send(answer):
    data = marshal.dumps(answer, 2)
    OUTPUT.write(len(data).to_bytes(8, "little"))
    OUTPUT.write(data)
    OUTPUT.flush()


class Changed(Exception):
    """A file is no longer what the key was made of."""


class Loader(SourceFileLoader):
    """Runs the very bytes that are in the key: no compiled file is read in their place."""

    digests = {}
    root = None

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        source = self.get_data(path)
        expected = self.digests.get(os.path.realpath(path))
        if expected is None:
            raise ImportError(f"`{path}` is a module of the project that is not in the stage's key: it is imported in a way "
                              f"that can't be seen in the code; add it to `files`")
        if expected != hashlib.sha256(source).hexdigest():
            raise Changed(path)
        return self.source_to_code(source, path)


class Finder:
    """Finds the project's modules, and leaves all others to Python."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not spec.origin or not spec.origin.endswith(".py") or type(spec.loader) is not SourceFileLoader:
            return None
        real = os.path.realpath(spec.origin)
        inside = real.startswith(Loader.root + os.sep) and not {"site-packages", "dist-packages"} & set(real.split(os.sep))
        if real not in Loader.digests and (not inside or real.startswith(STDLIB + os.sep)):
            return None
        spec.loader = Loader(name, spec.origin)
        return spec


STDLIB = os.path.realpath(os.path.dirname(os.__file__))


def told(error):
    """An exception for people: what it says, and the user's own frames."""
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != OWN and not f.filename.startswith("<frozen ")]
    said = "".join(traceback.format_exception_only(type(error), error)).rstrip()[:LONGEST_MESSAGE]
    return "".join(traceback.format_list(frames[-12:])) + said


class WrongType(TypeError):
    pass


def shown(value):
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def an_integer(value):
    if type(value) is not int:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise WrongType
        value = operator.index(value)
    if not -(1 << 63) <= value < 1 << 63:
        raise OverflowError(value)
    return value


def a_short_integer(value):
    value = an_integer(value)
    if not -(1 << 31) <= value < 1 << 31:
        raise OverflowError(value)
    return value


def a_float(value):
    if type(value) is float:
        return value
    if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__"):
        raise WrongType
    return float(value)


def a_string(value):
    if not isinstance(value, str):
        raise WrongType
    if not value.isascii():
        value.encode("utf-8")       # a lone surrogate is no text
    return value if type(value) is str else str.__str__(value)


def a_truth(value):
    if value is True or value is False:
        return value
    if type(value).__name__ in ("bool_", "bool"):       # NumPy's
        return bool(value)
    raise WrongType


PLAIN = {"int64": an_integer, "int32": a_short_integer, "float64": a_float, "float32": a_float, "string": a_string, "bool": a_truth}


def converter(column, kind):
    """Turns what the function returned into a column's plain value."""

    def convert(value, convert=plain_converter(kind)):
        try:
            return convert(value)
        except WrongType:
            message = f"column `{column}` is {kind}, and the function returned {shown(value)}"
        except OverflowError as error:
            raise OverflowError(f"column `{column}` is {kind}, which can't hold {error}") from None
        raise TypeError(message)

    return convert


def plain_converter(kind):
    if not kind.startswith("list of "):
        return PLAIN[kind]
    inner = plain_converter(kind[len("list of "):])

    def a_list(value):
        if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__iter__"):
            raise WrongType
        if isinstance(value, (set, frozenset)):
            value = sorted(value)
        return [None if one is None else inner(one) for one in value]

    return a_list


class Function:
    """The user's function, and how its results become columns."""

    def __init__(self, task):
        module = importlib.import_module(task["module"])
        self.call = getattr(module, task["name"])
        keywords = dict(task["params"])
        keywords.update((name, read_port(path, kind)) for name, path, kind in task["ports"])
        if task["setup"]:
            setup_module, name = task["setup"]
            function = getattr(importlib.import_module(setup_module), name)
            keywords[task["state"]] = function(**{name: keywords[name] for name in taken(function) if name in keywords})
        # What only a set-up function takes.
        if not task["any_keyword"]:
            keywords = {name: value for name, value in keywords.items() if name in taken(self.call)}
        self.keywords = keywords
        self.by_name = task["by_name"]          # the columns' names where they are handed over by keyword
        self.names = [name for name, _ in task["adds"]]
        self.converters = [converter(name, kind) for name, kind in task["adds"]]
        self.many = task["many"]
        self.single = task["single"]            # whether a result is the one column's value

    def row(self, value):
        """The values of a row's columns."""
        if self.single and not (isinstance(value, dict) and value.keys() == {self.names[0]}):
            return (None if value is None else self.converters[0](value),)
        if isinstance(value, dict):
            found = value
        elif isinstance(value, tuple) and not hasattr(value, "_fields"):
            if len(value) != len(self.names):
                raise TypeError(f"returns {len(value)} values for the columns {', '.join(self.names)}")
            found = dict(zip(self.names, value))
        elif hasattr(value, "_asdict"):
            found = value._asdict()
        elif hasattr(value, "__dict__") or hasattr(value, "__slots__"):
            found = {name: getattr(value, name) for name in self.names}
        else:
            raise TypeError(f"returns {shown(value)} where the columns {', '.join(self.names)} are declared")
        unknown = [name for name in found if name not in self.names]
        missing = [name for name in self.names if name not in found]
        if unknown or missing:
            what = f"returns no `{missing[0]}`" if missing else f"returns `{unknown[0]}`, which is not declared"
            raise TypeError(f"{what}: the columns are {', '.join(self.names)}")
        values = []
        for name, convert in zip(self.names, self.converters):
            value = found[name]
            values.append(None if value is None else convert(value))
        return tuple(values)

    def rows(self, value):
        if self.many or isinstance(value, types.GeneratorType):
            return [self.row(one) for one in value] if value is not None else []
        if not self.single and isinstance(value, list):
            return [self.row(one) for one in value]
        return [self.row(value)]

    def batch(self, seconds, columns, count):
        """Results of the first rows, as many as are done in time; at least one."""
        done, counts, results, failed = 0, [], [], []
        call, keywords, fast = self.call, self.keywords, self.single and not self.many and not self.by_name
        convert = self.converters[0]
        end = time.monotonic() + seconds
        for arguments in zip(*columns) if columns else [()] * count:
            try:
                if fast:
                    value = call(*arguments, **keywords) if keywords else call(*arguments)
                    if isinstance(value, (types.GeneratorType, dict)):
                        made = self.rows(value)
                    else:
                        made = ((None if value is None else convert(value),),)
                elif self.by_name:
                    made = self.rows(call(**dict(zip(self.by_name, arguments)), **keywords))
                else:
                    made = self.rows(call(*arguments, **keywords))
                results.extend(made)
                counts.append(len(made))
            except Changed:
                raise
            except BaseException as error:
                failed.append((done, told(error)))
                counts.append(0)
            done += 1
            if time.monotonic() >= end:
                break
        values = [list(column) for column in zip(*results)] if results else [[] for _ in self.names]
        return done, counts, values, failed


def taken(function):
    """The names of a function's parameters."""
    import inspect

    return inspect.signature(function).parameters


def read_port(path, kind):
    """An input as its parameter's annotation says."""
    library, _, name = kind.rpartition(".")
    if name in ("DataFrame", "LazyFrame", "Table"):
        if library.startswith("polars"):
            import polars
            return polars.scan_parquet(path) if name == "LazyFrame" else polars.read_parquet(path)
        if library.startswith("pyarrow"):
            import pyarrow.parquet
            return pyarrow.parquet.read_table(path, partitioning=None)
        import pandas
        return pandas.read_parquet(path)
    if kind == "str":
        return path
    import pathlib
    return pathlib.Path(path)


def check_index(index):
    """That an index of pandas, which is no column, only counts rows: names and labels would be lost."""
    names = [name for name in index.names if name is not None]
    if names:
        raise ValueError(f"returns a table whose index {names} is no column: return `.reset_index()`")
    if len(index) and not str(index.dtype).lower().startswith(("int", "uint")):
        raise ValueError("returns a table whose index has labels that are in no column: return `.reset_index()`")


def write_table(table, path):
    """A result as Parquet, by what it is."""
    if hasattr(table, "sink_parquet") and not hasattr(table, "write_parquet"):
        table = table.collect()
    if hasattr(table, "write_parquet"):
        table.write_parquet(path)
    elif hasattr(table, "to_parquet"):
        check_index(table.index)
        table.to_parquet(path, index=False)
    else:
        import pyarrow
        import pyarrow.parquet
        if isinstance(table, pyarrow.RecordBatch):
            table = pyarrow.Table.from_batches([table])
        elif isinstance(table, list):
            table = pyarrow.Table.from_pylist(table)
        if not isinstance(table, pyarrow.Table):
            raise TypeError(f"returns {shown(table)} where a table is declared")
        pyarrow.parquet.write_table(table, path)


def call_once(task, function):
    """Calls a function of whole tables: what it returns are its tables, folders it has filled itself."""
    value = function.call(**function.keywords)
    tables = {name: path for name, path, kind in task["outputs"] if kind == "returned"}
    if isinstance(value, dict) and value.keys() == tables.keys():
        found = value
    elif len(tables) == 1:
        found = {name: value for name in tables}
    elif not tables and value is None:
        found = {}
    else:
        raise TypeError(f"returns {shown(value)} where a dict of the tables {', '.join(tables) or '(none)'} is declared")
    for name, table in found.items():
        write_table(table, tables[name])


def main():
    task = json.loads(receive())
    Loader.digests = {os.path.realpath(path): digest for path, digest in task["files"].items()}
    Loader.root = os.path.realpath(task["root"])
    sys.path[:] = task["path"] + [p for p in sys.path if p and p not in task["path"]]
    sys.dont_write_bytecode = True
    sys.meta_path.insert(sys.meta_path.index(PathFinder), Finder)
    sys.argv = [task["module"]]
    try:
        function = Function(task)
    except Changed as error:
        return send(("changed", str(error)))
    except BaseException as error:
        return send(("failed", told(error)))
    send(("ready",))
    if task["outputs"]:
        try:
            call_once(task, function)
        except Changed as error:
            return send(("changed", str(error)))
        except BaseException as error:
            return send(("failed", told(error)))
        return send(("done",))
    while (request := receive()) is not None:
        seconds, columns, count = marshal.loads(request)
        try:
            answer = function.batch(seconds, columns, count)
        except Changed as error:
            return send(("changed", str(error)))
        sys.stdout.flush()
        sys.stderr.flush()
        send(("rows", *answer))


main()
