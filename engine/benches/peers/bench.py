"""tracetune beside other engines, on the same graphs, in the same minutes.

    python3 engine/benches/peers/bench.py --peers DIR [--parts graphs,concurrent,rows,sweep,hashing] [--sizes 10,100] [--out raw.jsonl]

DIR has the peers, each where `engines.py` says (`python3 -m venv DIR/dvc && DIR/dvc/bin/pip install dvc`, …); those that are not
there are named and left out. Every repetition runs every engine once, one after the other, so that a busy minute hits all of them.
Wall times are medians with their range; CPU seconds, which other users of the machine change less, stand beside them.

Leave a few minutes between a run that ends with `hashing`, or anything else that removes many files, and the next: on ext4
without a journal whoever creates files pays for those that were removed in the last five minutes.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from engines import ENGINES, Tracetune

ROOT = Path(__file__).resolve().parents[3]
#: Seconds after which a command is stopped.
LIMIT = 300
QUIET = {
    "CI": "1", "NO_COLOR": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "TURBO_TELEMETRY_DISABLED": "1", "USERNAME": "bench",
}


class Bench:
    def __init__(self, options, folder):
        self.folder = Path(folder)
        self.log = self.folder / "stages.log"
        self.out = open(options.out, "a") if options.out else None
        self.tracetune = Path(options.tracetune).resolve()
        self.engines = [(Tracetune, self.tracetune)]
        Tracetune.tables = self.make_tables()
        for engine, path in ENGINES.items():
            if path is None:
                continue
            program = Path(options.peers or "/nonexistent") / path
            if program.exists():
                self.engines.append((engine, program.absolute()))
            else:
                print(f"not installed, left out: {engine.name}", file=sys.stderr)
        self.environment = {**os.environ, **QUIET, "DVC_SITE_CACHE_DIR": str(self.folder / "dvc-site")}
        paths = [str(program.parent) for engine, program in self.engines if engine.name == "turbo"]
        self.environment["PATH"] = os.pathsep.join([*paths, os.environ["PATH"]])

    def make_tables(self):
        """Two small Parquet files that differ."""
        project = self.folder / "tables"
        project.mkdir()
        tables = {}
        for name, rows in (("v1", 1), ("v2", 2)):
            text = f'[stages.t]\nkind = "dataset"\nsource = "builtin:mini-python"\nsizes = {{ dev = {rows} }}\n'
            (project / "pipeline.toml").write_text(text)
            tables[name] = project / f"{name}.parquet"
            for command in (["run", "-q"], ["show", "-q", "latest", "t", "--out", tables[name]]):
                subprocess.run([self.tracetune, *command], cwd=project, check=True, stdout=subprocess.DEVNULL)
        return tables

    def measure(self, command, cwd, stdout=subprocess.DEVNULL, **labels):
        """Runs a command; gives wall and CPU seconds, its exit code, and how many stages ran."""
        self.log.write_text("")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=self.environment, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True
        )
        # `wait(LIMIT)` would look every 50 ms only.
        limit = threading.Timer(LIMIT, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        process.wait()
        limit.cancel()
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        row = {
            **labels,
            "wall_s": wall,
            "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "code": process.returncode,
            "stages": len(self.log.read_text().splitlines()),
            "load": os.getloadavg()[0],
        }
        if self.out:
            print(json.dumps(row), file=self.out, flush=True)
        return row

    def graphs(self, shapes, sizes, repetitions):
        """Cold, no-op, plan, a change in the middle, the change undone, a change that changes no output."""
        for shape in shapes:
            for size in sizes:
                rows = []
                projects = []
                for engine, program in self.engines:
                    project = engine(self.folder / f"{engine.name}-{shape}-{size}", program, self.log)
                    project.write(shape, size)
                    projects.append(project)
                for _ in range(repetitions):
                    for project in list(projects):
                        try:
                            self.steps(project, shape, size, rows)
                        except subprocess.CalledProcessError as error:
                            print(f"{project.name}: {error}", file=sys.stderr)
                            projects.remove(project)
                self.table(f"{shape} of {size} stages", rows, ["cold", "no-op", "plan", "change", "revert", "cutoff"])

    def steps(self, project, shape, size, rows):
        project.middle("v1", "")
        project.cold()

        def step(what, command):
            labels = {"engine": project.name, "shape": shape, "size": size, "what": what}
            rows.append(self.measure(command, project.folder, **labels))

        step("cold", project.run())
        if rows[-1]["code"] != 0:
            return
        step("no-op", project.run())
        if project.plan():
            step("plan", project.plan())
        project.middle("v2", "")
        step("change", project.run())
        project.middle("v1", "")
        step("revert", project.run())
        project.middle("v1", "more\n")
        step("cutoff", project.run())

    def table(self, title, rows, columns):
        ours = medians(rows, "tracetune")
        print(f"\n### {title}\n\n| engine | {' | '.join(columns)} | CPU s: cold, no-op | stages run: change, revert, cutoff |")
        print(f"|{' --- |' * (len(columns) + 3)}")
        for name in dict.fromkeys(row["engine"] for row in rows):
            theirs = medians(rows, name)
            cells = []
            for column in columns:
                found = [row for row in rows if (row["engine"], row["what"]) == (name, column)]
                if not found:
                    cells.append("-")
                elif any(row["code"] != 0 for row in found):
                    cells.append("fails")
                else:
                    ratio = "" if name == "tracetune" else f" ({theirs[column] / ours[column]:.0f}×)" if column in ours else ""
                    walls = [row["wall_s"] for row in found]
                    cells.append(f"{theirs[column]:.3f} [{min(walls):.3f}, {max(walls):.3f}]{ratio}")
            cpu = ", ".join(f"{value:.2f}" for value in (of(rows, name, what, "cpu_s") for what in ("cold", "no-op")) if value is not None)
            stages = ", ".join(str(int(value)) for value in (of(rows, name, what, "stages") for what in ("change", "revert", "cutoff")) if value is not None)
            print(f"| {name} | {' | '.join(cells)} | {cpu} | {stages} |", flush=True)
        loads = [row["load"] for row in rows]
        print(f"\nWall seconds, median [range] of {max(1, sum(row['what'] == 'cold' and row['engine'] == 'tracetune' for row in rows))}; load {min(loads):.1f} to {max(loads):.1f}.")

    def concurrent(self):
        """Two runs of a chain of 10 stages of 0.3 s at the same time: 10 stages are to run in all."""
        print("\n### Two runs at once, 10 stages\n\n| engine | stages run (10 is right) | exit codes |\n| --- | --: | --- |")
        for engine, program in self.engines:
            project = engine(self.folder / f"{engine.name}-twice", program, self.log, extra="sleep 0.3")
            project.write("chain", 10)
            project.cold()
            self.log.write_text("")
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            runs = []
            for _ in range(2):
                runs.append(subprocess.Popen(project.run(), cwd=project.folder, env=self.environment, **quiet))
                time.sleep(0.2)
            codes = [run.wait(LIMIT) for run in runs]
            print(f"| {engine.name} | {len(self.log.read_text().splitlines())} | {codes[0]}, {codes[1]} |", flush=True)

    def rows(self):
        """One of 10,000 rows changes. The peers know only the whole file."""
        count = 10_000
        project = self.folder / "rows"
        project.mkdir()
        (project / "pipeline.toml").write_text(
            '[stages.problems]\nkind = "dataset"\nsource = "rows.jsonl"\n\n[stages.copy]\nkind = "command"\n'
            'run = ["sh", "-c", "cp $TRACETUNE_IN_ROWS $TRACETUNE_OUT"]\ninputs = { rows = "problems" }\n'
            'row_wise = { reads = ["instruction"], adds = { instruction = "string" } }\n'
        )
        print(f"\n### One of {count:,} rows changes\n\n| engine | rows computed: cold, no-op, one changed | wall s |\n| --- | --- | --- |")
        computed, walls = [], []
        for changed in (None, None, count // 2):
            lines = [
                json.dumps({
                    "problem_id": f"p{i}", "instruction": f"row {i}{' changed' if i == changed else ''}", "entry_point": "f",
                    "reference": "def f(x):\n    return x\n", "tests": ["assert f(1) == 1"],
                })
                for i in range(count)
            ]
            (project / "rows.jsonl").write_text("\n".join(lines))
            with open(project / "run.json", "w") as answer:
                row = self.measure([self.tracetune, "run", "--json"], project, stdout=answer, engine="tracetune", what="rows")
            walls.append(f"{row['wall_s']:.2f}")
            nodes = json.loads((project / "run.json").read_text())["nodes"]
            computed.append(next(node["rows_computed"] for node in nodes if node["id"] == "copy"))
        print(f"| tracetune | {', '.join(map(str, computed))} | {', '.join(walls)} |")
        for engine, program in self.engines:
            if engine.name not in ("dvc", "snakemake", "doit"):
                continue
            peer = engine(self.folder / f"{engine.name}-rows", program, self.log)
            peer.write("chain", 1)
            (peer.folder / "step.sh").write_text(f'out=$1; sed "s/.*/x/" "$2" >> {self.log}; cp "$2" "$out"\n')
            peer.cold()
            computed, walls = [], []
            for changed in (None, None, count // 2):
                peer.text("seed.txt", "".join(f"row {i}{' changed' if i == changed else ''}\n" for i in range(count)))
                row = self.measure(peer.run(), peer.folder, engine=engine.name, what="rows")
                computed.append(row["stages"])
                walls.append(f"{row['wall_s']:.2f}")
            print(f"| {engine.name} | {', '.join(map(str, computed))} | {', '.join(walls)} |", flush=True)

    def sweep(self):
        """20 variants of 3 stages behind 5 that they share: 65 stages, 160 if nothing is shared."""
        project = self.folder / "sweep"
        shutil.rmtree(project, ignore_errors=True)
        project.mkdir()
        (project / "step.sh").write_text(f'echo "$NAME" >> {self.log}\ncp "${{TABLE:-$TRACETUNE_IN_FIRST}}" "$TRACETUNE_OUT"\n')
        shutil.copyfile(Tracetune.tables["v1"], project / "seed.parquet")
        lines = ['[params]\ntag = 0\n\n[sweep]\ntag = [' + ", ".join(map(str, range(20))) + "]\n"]
        for number in range(8):
            environment = f'NAME = "s{number}"' + (', TABLE = "seed.parquet"' if number == 0 else "")
            environment += ', TAG = "$tag"' if number == 5 else ""
            lines.append(f'[stages.s{number}]\nkind = "command"\nrun = ["sh", "step.sh"]\nfiles = ["step.sh", "seed.parquet"]')
            lines.append(f'env = {{ {environment} }}\n' + (f'inputs = {{ first = "s{number - 1}" }}\n' if number else ""))
        text = "\n".join(lines).replace("tag = 0", 'tag = "0"').replace("[" + ", ".join(map(str, range(20))) + "]", json.dumps([str(i) for i in range(20)]))
        (project / "pipeline.toml").write_text(text)
        print("\n### A sweep: 20 variants of 3 stages behind 5 common ones\n\n| | wall s | stages run | of them common |\n| --- | --: | --: | --: |")
        for what in ("cold", "no-op"):
            row = self.measure([self.tracetune, "run", "--sweep", "--quiet"], project, engine="tracetune", what=f"sweep {what}")
            common = sum(line in {f"s{i}" for i in range(5)} for line in self.log.read_text().split())
            print(f"| {what} | {row['wall_s']:.2f} | {row['stages']} | {common} |")

    def hashing(self):
        """A declared file of 2 GiB and a declared folder of 20,000 files of 4 KiB: read, and known."""
        print("\n### Declared inputs\n\n| | what | wall s |\n| --- | --- | --- |")
        big, many = self.folder / "big", self.folder / "many"
        for project in (big, many):
            project.mkdir()
        with open(big / "data", "wb") as file:
            for _ in range(2048):
                file.write(os.urandom(1 << 20))
        (many / "data").mkdir()
        for number in range(20_000):
            (many / "data" / f"{number:05}").write_bytes(os.urandom(4096))
        time.sleep(3)  # files that were changed just now are not trusted
        for project, what in ((big, "2 GiB"), (many, "20,000 files")):
            (project / "pipeline.toml").write_text('[stages.a]\nkind = "command"\nrun = ["true"]\nfiles = ["data"]\n')
            plan = [self.tracetune, "plan", "--quiet"]
            read, known = [], []
            for _ in range(5):
                shutil.rmtree(project / ".tracetune", ignore_errors=True)
                (project / ".tracetune").mkdir()
                read.append(self.measure(plan, project, engine="tracetune", what=f"{what} read")["wall_s"])
                known.append(self.measure(plan, project, engine="tracetune", what=f"{what} known")["wall_s"])
            print(f"| tracetune | {what}: read, known | {statistics.median(read):.3f}, {statistics.median(known):.3f} |")
            for tool in ("b3sum", "md5sum"):
                if program := shutil.which(tool, path=self.environment["PATH"]):
                    command = ["sh", "-c", f"find data -type f -print0 | xargs -0 {program}"]
                    walls = [self.measure(command, project, engine=tool, what=what)["wall_s"] for _ in range(3)]
                    print(f"| {tool} | {what} | {statistics.median(walls):.3f} |", flush=True)


def of(rows, engine, what, field):
    values = [row[field] for row in rows if (row["engine"], row["what"]) == (engine, what) and row["code"] == 0]
    return statistics.median(values) if values else None


def medians(rows, engine):
    return {what: value for what in {row["what"] for row in rows} if (value := of(rows, engine, what, "wall_s")) is not None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracetune", default=ROOT / "target/release/tracetune", help="the binary (default: the release build)")
    parser.add_argument("--peers", help="the folder with the peers")
    parser.add_argument("--parts", default="graphs,concurrent,rows,sweep,hashing")
    parser.add_argument("--shapes", default="chain,wide")
    parser.add_argument("--sizes", default="10,100")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", help="append the raw measurements, a JSON object a line")
    options = parser.parse_args()
    if not Path(options.tracetune).exists():
        sys.exit(f"there is no {options.tracetune}: cargo build --release")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    print(f"{time.strftime('%Y-%m-%d')}, commit {commit}, {os.cpu_count()} threads, {platform.platform()}; `{' '.join(sys.argv)}`")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, folder)
        for part in options.parts.split(","):
            if part == "graphs":
                bench.graphs(options.shapes.split(","), [int(size) for size in options.sizes.split(",")], options.repetitions)
            else:
                getattr(bench, part)()


if __name__ == "__main__":
    main()
