"""Calls a function for row after row. Frames on standard input and output: a length of four bytes, little-endian, and
JSON. Floats travel as the bits of their 64-bit form, so that none changes. What the function prints goes to standard
error."""
import importlib
import importlib.util
import json
import os
import struct
import sys
import traceback

requests = os.fdopen(os.dup(0), "rb")
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
root, where, name, setup = sys.argv[1:5]
sys.argv = [where]


def receive():
    head = requests.read(4)
    if len(head) < 4:
        sys.exit(0)
    return json.loads(requests.read(struct.unpack("<I", head)[0]))


def send(answer):
    data = json.dumps(answer, ensure_ascii=True).encode()
    answers.write(struct.pack("<I", len(data)) + data)
    answers.flush()


def load():
    sys.path[0] = root
    if not where.endswith(".py"):
        return importlib.import_module(where)
    path = os.path.realpath(os.path.join(root, where))
    sys.path.insert(0, os.path.dirname(path))
    stem = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    spec.loader.exec_module(module)
    return module


def own_frames(error):
    """The traceback without this file's frames."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != "<string>"]
    lines = traceback.format_list(own) + traceback.format_exception_only(type(error), error)
    return "".join(lines).rstrip()


def bits(number):
    return struct.unpack("<Q", struct.pack("<d", number))[0]


def decode(value, kind):
    if value is None:
        return None
    if kind.startswith("list of "):
        return [decode(item, kind[8:]) for item in value]
    return struct.unpack("<d", struct.pack("<Q", value))[0] if kind.startswith("float") else value


def encode(value, kind, column):
    if hasattr(value, "item") and not isinstance(value, (int, float, str, bool, list, tuple)):
        value = value.item()
    if value is None:
        return None
    if kind.startswith("list of "):
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise TypeError(f"column `{column}` is {kind}, and the function returned {value!r:.80}")
        return [encode(item, kind[8:], column) for item in value]
    wanted = {"string": str, "bool": bool, "int32": int, "int64": int}.get(kind, (int, float))
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        raise TypeError(f"column `{column}` is {kind}, and the function returned {value!r:.80}")
    if kind in ("int32", "int64"):
        size = int(kind[3:])
        if not -(1 << (size - 1)) <= value < 1 << (size - 1):
            raise OverflowError(f"column `{column}` is {kind}, which can't hold {value}")
        return int(value)
    if kind == "string":
        value.encode()  # A lone surrogate is no text.
        return str(value)
    return value if kind == "bool" else bits(float(value))


def row(result, adds, single):
    if single:
        (column, kind), = adds.items()
        return [encode(result, kind, column)]
    if hasattr(result, "_asdict"):
        result = result._asdict()
    elif not isinstance(result, dict):
        result = vars(result)
    for key in result:
        if key not in adds:
            raise KeyError(f"the function returned `{key}`, which is none of its columns: {', '.join(adds)}")
    for key in adds:
        if key not in result:
            raise KeyError(f"the function returned no `{key}`")
    return [encode(result[column], kind, column) for column, kind in adds.items()]


start = receive()
try:
    module = load()
    function = getattr(module, name)
    keywords = dict(start["params"])
    if setup:
        keywords[start["state"]] = getattr(module, setup)()
    send({"ready": True})
except BaseException as error:
    send({"error": own_frames(error)})
    sys.exit(1)
adds, many, single = start["adds"], start["many"], start["single"]
while True:
    request = receive()
    kinds = request["types"]
    columns = [[decode(value, kind) for value in column] for column, kind in zip(request["columns"], kinds)]
    results = []
    for values in zip(*columns) if columns else [()] * request["rows"]:
        try:
            result = function(*values, **keywords)
            rows = [row(one, adds, single) for one in result] if many else [row(result, adds, single)]
            results.append(rows)
        except Exception as error:
            results.append({"error": own_frames(error)})
    send({"results": results})
