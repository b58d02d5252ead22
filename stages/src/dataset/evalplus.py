"""Reads one line of EvalPlus's HumanEvalPlus.jsonl or MbppPlus.jsonl; the job is (line,).

Its tests are inputs: what is expected is what the canonical solution gives. Frames that come back: (problem, task_id,
instruction, reference, entry_point), then (test, text) for each input in the file's order, the base ones first, and
(skipped, reason) for each input that gives none; or (bad, field, message).

Oracles of EvalPlus that compare otherwise than by `==` with tolerance are kept where they are stricter than nothing;
its lenient ones (Mbpp/164, 295, 558, 581) are not: those tests ask for the canonical solution's value.
"""

Program, assert_text = shared[b"asserts"]["Program"], shared[b"asserts"]["assert_text"]
call_text, literal = shared[b"asserts"]["call_text"], shared[b"asserts"]["literal"]

# JSON has no tuples: where MBPP+ means one, by task number. (tasks, argument or None for all, depths)
TUPLES = (
    ((2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740), None, (0,)),
    ((744, 809), None, (0,)),
    ((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), None, (1,)),
    ((75, 413, 444, 722, 753), 0, (1,)),
    ((106, 750), 1, (0,)),
    ((250, 307, 405, 446, 617, 720, 763, 808), 0, (0,)),
    ((259, 278, 401, 445), None, (0, 1)),
    ((580, 615, 791), None, range(100)),
)
SETS = {
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum", "intersection_array",
    "find_dissimilar", "Diff",
}  # fmt: skip
FOUND = ("check_str", "text_match_three", "text_starta_endb")


def tuples(value, depths, depth=0):
    if isinstance(value, dict):
        return {key: tuples(item, depths, depth + 1) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    items = [tuples(item, depths, depth + 1) for item in value]
    return tuple(items) if depth in depths else items


def mbpp_arguments(task, arguments):
    if task == 115:
        return [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]]
    if task in (124, 252):
        return [*map(float, arguments[:-1]), complex(arguments[-1])]
    for tasks, place, depths in TUPLES:
        if task in tasks:
            return [tuples(value, depths) if place in (None, at) else value for at, value in enumerate(arguments)]
    return arguments


def test_of(program, name, arguments, tolerance):
    call = call_text(name, arguments)
    if name == "find_zero":  # any root will do
        return f"assert abs(poly({literal(arguments[0])}, {call})) <= {tolerance!r}"
    expression, value = program.value(call)
    if name in SETS:
        return f"assert set({call}) == {literal(set(value))}"
    if name in FOUND:
        return f"assert ({call} not in (None, False)) == {value not in (None, False)}"
    return assert_text(expression, value, tolerance)


def field(row, name, kind):
    if not isinstance(row.get(name), kind):
        raise KeyError(name, "is missing" if name not in row else "has the wrong type")
    return row[name]


def convert(row, send):
    task_id, name = field(row, "task_id", str), field(row, "entry_point", str)
    prompt, solution = field(row, "prompt", str), field(row, "canonical_solution", str)
    inputs = [field(row, "base_input", list), field(row, "plus_input", (list, dict))]
    whole = task_id.startswith("Mbpp/")
    reference = (solution if whole else prompt + solution).strip("\n") + "\n"
    try:
        program = Program(reference)
    except Exception as error:
        raise KeyError("canonical_solution", f"can't be loaded: {type(error).__name__}: {error}") from None
    instruction = prompt.strip().strip('"').strip() if whole else prompt
    send(b"problem", *(text.encode() for text in (task_id, instruction, reference, name)))
    seen = set()
    for arguments in (arguments for part in inputs for arguments in part):
        try:
            if not isinstance(arguments, list):
                raise ValueError("an input is no list of arguments")
            if whole:
                arguments = mbpp_arguments(int(task_id.split("/")[1]), arguments)
            test = test_of(program, name, arguments, row.get("atol") or 0)
        except (ValueError, TypeError, RecursionError) as error:
            send(b"skipped", str(error).encode("utf-8", "backslashreplace"))
            continue
        if test not in seen:
            seen.add(test)
            send(b"test", test.encode())


def run(job, send):
    import json

    try:
        row = json.loads(job[0])
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        convert(row, send)
    except KeyError as error:
        send(b"bad", *(str(part).encode("utf-8", "backslashreplace") for part in error.args))
    except ValueError as error:
        send(b"bad", b"", f"not JSON: {error}".encode("utf-8", "backslashreplace"))
    send(b"done")
