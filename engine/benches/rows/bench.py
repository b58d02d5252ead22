"""Reuse by row of a Python function, measured: one process per step, the function's calls counted.

    python3 engine/benches/rows/bench.py --tracetune target/release/tracetune --rows 10000

Needs `pyarrow`, for the tables and to compare results. Steps, one after the other in one folder:

  first    the table as it is
  again    nothing changed
  edit     one row changed, one added, one removed, two swapped
  back     the first table again
  note     a column changed everywhere that the function does not read
  comment  a comment added to the function
  code     the function changed: everything is computed again
  scatter  thirteen rows changed that lie far apart

and in a fresh folder each, with a function that takes 0.5 ms:

  kill     SIGKILL to the process group at half of the rows, then a second run: `computed` is how many rows were computed twice
  two      two processes at the same time: `computed` is all calls

Prints one JSON object per step.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = "ash birch cedar elm fir hazel larch maple oak pine rowan spruce teak willow yew".split()
FUNCTION = """import os
import time

_COUNT = os.open(os.environ["ROWS_COUNT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
_SLEEP = float(os.environ.get("ROWS_SLEEP", "0"))


def chars(text: str) -> int:
{comment}    os.write(_COUNT, b".")
    if _SLEEP:
        time.sleep(_SLEEP)
    return len(text){factor}
"""
PIPELINE = """[pipeline]
name = "rows"

[stages.rows]
kind = "table"
path = "rows.parquet"

[stages.lengths]
kind = "python"
function = "chars.py:chars"
rows = "rows"
adds = {{ n = "int64" }}
python = "{python}"
pass_env = ["ROWS_COUNT", "ROWS_SLEEP"]
"""


def versions(rows):
    """The tables of the steps, as lists of (id, text, note). No two texts are the same."""
    rng = random.Random(1)
    first = [(i, f"{i:07d} " + " ".join(rng.choices(WORDS, k=rng.randint(5, 40))), f"n{i % 7}") for i in range(rows)]
    edited = list(first)
    edited[rows // 3] = (edited[rows // 3][0], edited[rows // 3][1] + " changed", "n0")
    del edited[rows // 2]
    edited[10], edited[rows - 20] = edited[rows - 20], edited[10]
    edited.append((rows + 5, "a new row that was never there before", "n0"))
    scattered = list(first)
    for at in range(0, rows, rows // 13 + 1):
        scattered[at] = (at, scattered[at][1] + " scattered", "n0")
    return dict(first=first, edited=edited, noted=[(i, t, n + "!") for i, t, n in first], scattered=scattered)


class Project:
    def __init__(self, args, sleep=0.0):
        self.args = args
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rows-", dir=args.scratch))
        (self.folder / ".tracetune").mkdir()
        (self.folder / "rows.toml").write_text(PIPELINE.format(python=sys.executable))
        self.count = self.folder / "count"
        self.count.write_bytes(b"")
        self.env = dict(os.environ, ROWS_COUNT=str(self.count), ROWS_SLEEP=str(sleep))

    def write(self, rows, comment="", factor=""):
        self.rows, self.factor = rows, 2 if factor else 1
        columns = dict(zip(["id", "text", "note"], map(list, zip(*rows))))
        if not getattr(self, "written", None) == columns:
            pq.write_table(pa.table(columns), self.folder / "rows.parquet")
            self.written = columns
        text = FUNCTION.format(comment=comment, factor=factor)
        if not (self.folder / "chars.py").exists() or (self.folder / "chars.py").read_text() != text:
            (self.folder / "chars.py").write_text(text)

    def start(self):
        command = [str(self.args.tracetune), "run", "rows.toml", "-q"]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, start_new_session=True)

    def calls(self):
        return self.count.stat().st_size

    def is_right(self):
        out = self.folder / "out.parquet"
        command = [str(self.args.tracetune), "show", "latest", "lengths", "--columns", "id,n", "--out", str(out)]
        subprocess.run(command, cwd=self.folder, env=self.env, check=True, stdout=subprocess.DEVNULL)
        table = pq.read_table(out)
        return list(zip(table["id"].to_pylist(), table["n"].to_pylist())) == [(i, len(t) * self.factor) for i, t, _ in self.rows]

    def step(self, name):
        before, began = self.calls(), time.perf_counter()
        code = self.start().wait()
        wall = time.perf_counter() - began
        self.say(name, wall_s=round(wall, 3), computed=self.calls() - before, exit=code)

    def say(self, name, **what):
        segments = sum(1 for path in (self.folder / ".tracetune/segments").rglob("*") if path.is_file())
        line = dict(step=name, rows=len(self.rows), **what, segments=segments, right=self.is_right(), load=os.getloadavg()[0])
        print(json.dumps(line), flush=True)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def steps(args, tables):
    project = Project(args)
    for name, table, form in [
        ("first", "first", {}), ("again", "first", {}), ("edit", "edited", {}), ("back", "first", {}), ("note", "noted", {}),
        ("comment", "noted", dict(comment="    # how many characters it has\n")), ("code", "noted", dict(factor=" * 2")),
        ("scatter", "scattered", dict(factor=" * 2")),
    ]:
        project.write(tables[table], **form)
        project.step(name)
    project.close()


def kill(args, tables):
    project = Project(args, sleep=0.0005)
    project.write(tables["first"])
    process = project.start()
    while project.calls() < args.rows // 2 and process.poll() is None:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    at = project.calls()
    code = project.start().wait()
    project.say("kill", at=at, computed=project.calls() - args.rows, exit=code)
    project.close()


def two(args, tables):
    project = Project(args, sleep=0.0005)
    project.write(tables["first"])
    began = time.perf_counter()
    codes = [process.wait() for process in [project.start(), project.start()]]
    project.say("two", wall_s=round(time.perf_counter() - began, 3), computed=project.calls(), exit=max(codes))
    project.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracetune", type=lambda path: pathlib.Path(path).resolve(), required=True)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--what", nargs="*", default=["steps", "kill", "two"], choices=["steps", "kill", "two"])
    parser.add_argument("--scratch", type=pathlib.Path, default=tempfile.gettempdir())
    args = parser.parse_args()
    tables = versions(args.rows)
    for _ in range(args.repeat):
        for what in args.what:
            {"steps": steps, "kill": kill, "two": two}[what](args, tables)


main()
