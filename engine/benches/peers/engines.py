"""The same graph of trivial stages for each engine, and the commands that run and plan it.

A stage is `sh step.sh OUT IN...`: it logs that it ran and writes a checksum of the first line of each input, so that a
change below the first line leaves its output as it is. tracetune's stages are tables: the same three processes, then a copy
of the Parquet file that the stage depends on.
"""

import json
import shutil
import subprocess
from pathlib import Path

STEP = """#!/bin/sh
out=$1; shift
echo "$out" >> "{log}"
{extra}
head -qn1 "$@" | cksum > "$out"
"""

TABLE_STEP = """#!/bin/sh
echo "$NAME" >> "{log}"
{extra}
head -qn1 "$NOTE" | cksum > /dev/null
cp "${{TABLE:-$TRACETUNE_IN_FIRST}}" "$TRACETUNE_OUT"
"""


def graph(shape, count):
    """[(number, [stages it reads])]; the middle one reads `mid.txt` as well."""
    stages = []
    for number in range(count):
        if number == 0:
            reads = []
        elif shape == "chain":
            reads = [number - 1]
        elif number == count - 1:
            reads = list(range(1, count - 1))
        else:
            reads = [0]
        stages.append((number, reads))
    return stages


class Engine:
    """An engine in a project folder of its own."""

    name = ""
    #: Where its state is, apart from the outputs.
    state = ()

    def __init__(self, folder, program, log, extra=""):
        self.folder, self.program, self.log, self.extra = Path(folder), program, Path(log), extra

    def write(self, shape, count):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.text("seed.txt", "seed\n")
        self.text("step.sh", STEP.format(log=self.log, extra=self.extra))
        self.middle("v1", "")
        self.pipeline(graph(shape, count))

    def text(self, name, text):
        (self.folder / name).write_text(text)

    def middle(self, first_line, rest):
        """What the middle stage reads; only the first line matters to its output."""
        self.text("mid.txt", f"{first_line}\n{rest}")

    def cold(self):
        for name in ("s", *self.state):
            path = self.folder / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        (self.folder / "s").mkdir()

    def inputs(self, number, reads, count):
        files = [f"s/{read}.txt" for read in reads] or ["seed.txt"]
        return files + ["mid.txt"] if number == count // 2 else files

    def quietly(self, *command):
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def pipeline(self, stages):
        raise NotImplementedError

    def run(self):
        raise NotImplementedError

    def plan(self):
        """Its own plan or status command, if it has one."""
        return None


class Tracetune(Engine):
    name = "tracetune"
    state = (".tracetune",)
    tables = None

    def middle(self, first_line, rest):
        super().middle(first_line, rest)
        shutil.copyfile(self.tables[first_line], self.folder / "mid.parquet")

    def pipeline(self, stages):
        self.text("step.sh", TABLE_STEP.format(log=self.log, extra=self.extra))
        shutil.copyfile(self.tables["v1"], self.folder / "seed.parquet")
        count = len(stages)
        lines = ['[pipeline]\nname = "bench"\n']
        for number, reads in stages:
            table = "seed" if not reads else "mid" if number == count // 2 else None
            files = ["step.sh"] + ([f"{table}.parquet"] if table else []) + (["mid.txt"] if table == "mid" else [])
            environment = {"NAME": f"s{number}", "NOTE": "mid.txt" if table == "mid" else "seed.txt"}
            if table:
                environment["TABLE"] = f"{table}.parquet"
            ports = ", ".join(f'{"first" if place == 0 else f"in{place}"} = "s{read}"' for place, read in enumerate(reads))
            values = ", ".join(f"{key} = {json.dumps(value)}" for key, value in environment.items())
            lines.append(f'[stages.s{number}]\nkind = "command"\nrun = ["sh", "step.sh"]\nfiles = {json.dumps(files)}')
            lines.append(f"inputs = {{ {ports} }}\nenv = {{ {values} }}\n")
        self.text("pipeline.toml", "\n".join(lines))

    def run(self):
        return [self.program, "run", "--quiet"]

    def plan(self):
        return [self.program, "plan", "--quiet"]


class Dvc(Engine):
    name = "dvc"
    state = (".dvc", "dvc.lock", ".site", ".dvcignore")

    def pipeline(self, stages):
        lines = ["stages:"]
        for number, reads in stages:
            files = self.inputs(number, reads, len(stages))
            lines += [f"  s{number}:", f"    cmd: sh step.sh s/{number}.txt {' '.join(files)}", "    deps:"]
            lines += [f"    - {file}" for file in files] + ["    outs:", f"    - s/{number}.txt"]
        self.text("dvc.yaml", "\n".join(lines) + "\n")

    def cold(self):
        super().cold()
        self.quietly(self.program, "init", "--no-scm", "-q")
        self.quietly(self.program, "config", "core.analytics", "false")

    def run(self):
        return [self.program, "repro", "-q"]

    def plan(self):
        return [self.program, "status"]


class Snakemake(Engine):
    name = "snakemake"
    state = (".snakemake",)

    def pipeline(self, stages):
        rules = [f"rule all:\n    input: 's/{len(stages) - 1}.txt'\n"]
        for number, reads in stages:
            files = self.inputs(number, reads, len(stages))
            rules.append(
                f"rule s{number}:\n    input: {files!r}\n    output: 's/{number}.txt'\n"
                "    shell: 'sh step.sh {output} {input}'\n"
            )
        self.text("Snakefile", "\n".join(rules))

    def run(self):
        return [self.program, "--cores", "2", "-q", "all"]

    def plan(self):
        return [self.program, "-n", "-q"]


class Doit(Engine):
    name = "doit"
    state = (".doit.db", ".doit.db.db", ".doit.db.dat", ".doit.db.dir", ".doit.db.bak")

    def pipeline(self, stages):
        tasks = [(number, self.inputs(number, reads, len(stages))) for number, reads in stages]
        self.text(
            "dodo.py",
            f"DOIT_CONFIG = {{'verbosity': 0}}\nTASKS = {json.dumps(tasks)}\n\n\ndef task_s():\n"
            "    for number, files in TASKS:\n        out = f's/{number}.txt'\n"
            "        yield {'name': str(number), 'file_dep': files, 'targets': [out],\n"
            "               'actions': ['sh step.sh ' + out + ' ' + ' '.join(files)]}\n",
        )

    def run(self):
        return [self.program, "-n", "2", "-P", "thread"]

    def plan(self):
        return [self.program, "list", "--all", "--status"]


class Redun(Engine):
    """Its stages are Python functions that do the same without a process."""

    name = "redun"
    state = (".redun",)

    def pipeline(self, stages):
        tasks = [(number, reads, number == len(stages) // 2) for number, reads in stages]
        delay = f"time.sleep({self.extra.split()[1]})" if self.extra else "pass"
        self.text(
            "workflow.py",
            f"""import time
import zlib
from redun import File, task

redun_namespace = "bench"
TASKS = {tasks!r}


@task()
def step(out: str, inputs: list) -> File:
    with open({str(self.log)!r}, "a") as log:
        log.write(out + "\\n")
    {delay}
    lines = [file.read().split("\\n", 1)[0] for file in inputs]
    file = File(out)
    file.write(f"{{zlib.crc32(chr(10).join(lines).encode())}}\\n")
    return file


@task()
def main() -> File:
    done = {{}}
    for number, reads, is_middle in TASKS:
        inputs = [done[read] for read in reads] or [File("seed.txt")]
        done[number] = step(f"s/{{number}}.txt", inputs + ([File("mid.txt")] if is_middle else []))
    return done[len(TASKS) - 1]
""",
        )

    def run(self):
        return [self.program, "run", "workflow.py", "main"]


class Turbo(Engine):
    """One package a stage; bun starts the scripts, because npm alone takes a quarter of a second for each."""

    name = "turbo"

    def pipeline(self, stages):
        bun = Path(self.program).with_name("bun")
        version = subprocess.run([bun, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        root = {"name": "bench", "private": True, "packageManager": f"bun@{version}", "workspaces": ["p/*"]}
        self.text("package.json", json.dumps(root))
        build = {"dependsOn": ["^build"], "inputs": ["package.json", "*.txt", "!out.txt"], "outputs": ["out.txt"]}
        self.text("turbo.json", json.dumps({"tasks": {"build": build}}))
        self.middle_of = f"p/s{len(stages) // 2}"
        self.count = len(stages)
        for number, reads in stages:
            package = self.folder / f"p/s{number}"
            package.mkdir(parents=True)
            files = [f"../s{read}/out.txt" for read in reads] or ["seed.txt"]
            (package / "seed.txt").write_text("seed\n")
            if number == len(stages) // 2:
                files.append("mid.txt")
            dependencies = {f"s{read}": "workspace:*" for read in reads}
            script = f"sh ../../step.sh out.txt {' '.join(files)}"
            content = {"name": f"s{number}", "version": "1.0.0", "dependencies": dependencies, "scripts": {"build": script}}
            (package / "package.json").write_text(json.dumps(content))
        self.middle("v1", "")
        self.text(".gitignore", "node_modules\n.turbo\nout.txt\n")
        self.quietly(bun, "install")
        self.quietly("git", "init", "-q", ".")
        self.quietly("git", "add", "-A")
        self.quietly("git", "-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-qm", "x")

    def middle(self, first_line, rest):
        if hasattr(self, "middle_of"):
            self.text(f"{self.middle_of}/mid.txt", f"{first_line}\n{rest}")

    def cold(self):
        for name in (".turbo", "node_modules/.cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for number in range(self.count):
            (self.folder / f"p/s{number}/out.txt").unlink(missing_ok=True)

    def run(self):
        return [self.program, "run", "build", "--output-logs=none", "--concurrency=2"]

    def plan(self):
        return [self.program, "run", "build", "--dry=json"]


class Moon(Engine):
    """One project, one task a stage."""

    name = "moon"

    def pipeline(self, stages):
        for name in (".moon", "app/s"):
            (self.folder / name).mkdir(parents=True)
        self.text(".moon/workspace.yml", "projects:\n  app: 'app'\nvcs:\n  client: 'git'\n  defaultBranch: 'master'\ntelemetry: false\n")
        self.text(".moon/toolchains.yml", "{}\n")
        lines = ["language: 'bash'", "tasks:"]
        for number, reads in stages:
            files = self.inputs(number, reads, len(stages))
            lines += [
                f"  s{number}:",
                f"    command: 'sh step.sh s/{number}.txt {' '.join(files)}'",
                "    toolchains: ['system']",
                f"    inputs: {json.dumps(['/app/' + file for file in files])}",
                f"    outputs: ['/app/s/{number}.txt']",
            ]
            if reads:
                lines.append(f"    deps: {json.dumps([f'~:s{read}' for read in reads])}")
        self.last = len(stages) - 1
        self.text("app/moon.yml", "\n".join(lines) + "\n")
        for name in ("seed.txt", "mid.txt", "step.sh"):
            shutil.copyfile(self.folder / name, self.folder / "app" / name)
        self.text(".gitignore", ".moon/cache\napp/s\n")
        self.quietly("git", "init", "-q", ".")
        self.quietly("git", "add", "-A")
        self.quietly("git", "-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-qm", "x")

    def middle(self, first_line, rest):
        super().middle(first_line, rest)
        if (self.folder / "app").is_dir():
            self.text("app/mid.txt", f"{first_line}\n{rest}")

    def cold(self):
        for name in ("app/s", ".moon/cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "app/s").mkdir()

    def run(self):
        return [self.program, "run", f"app:s{self.last}", "--concurrency", "2", "--quiet"]


#: Each engine, and where its program is below the folder of the peers.
ENGINES = {
    Tracetune: None,
    Dvc: "dvc/bin/dvc",
    Snakemake: "snakemake/bin/snakemake",
    Redun: "redun/bin/redun",
    Doit: "doit/bin/doit",
    Turbo: "turbo/node_modules/.bin/turbo",
    Moon: "moon/node_modules/.bin/moon",
}
