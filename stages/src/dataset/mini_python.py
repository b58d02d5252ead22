#!/usr/bin/env python3
"""mini_python: a seeded family of tiny Python repair problems.

Reads ONE JSON object on stdin:

    {"seed": 1, "splits": {"pretrain": 20000, "seed": 300, "train": 2000, "dev": 200, "test": 400}}

and writes one JSON object a line on stdout, split by split. Every problem is a
correct function `f` of 4 to 9 lines, a one-line instruction and 8 tests. Every
split but `pretrain` also holds a version with one wrong line; `seed` alone
shows how to repair it (a short rationale and a one-line edit).

What makes the family useful for learning to read traces: instructions leave
some details out (which variable is returned, now and then a limit or a start),
so that about half of the bugs can only be told from the run of a failing test.

Guarantees
  * the same bytes for the same request on every platform and Python 3.10+:
    own random numbers (splitmix64), no clock, no hash order;
  * a split does not depend on which other splits are asked for, and asking for
    more rows only appends rows;
  * splits are disjoint in program STRUCTURE (names canonical, constants masked),
    with at most 3 problems a structure, under every seed alike;
  * no seed but 1 has a program of the first 400 dev and test problems of seed 1,
    on which settings were chosen;
  * programs and wrong versions are deterministic and bounded in steps and size.

To extend the family, add rows to STEPS, MIXES, CONDITIONS or UPDATES, or write
one more `family_...` function and list it in FAMILIES.
"""

import hashlib
import json
import re
import sys

TESTS = 8  # tests a problem
MAX_PER_STRUCTURE = 3  # problems that differ in names and constants only
VAGUE = 18  # per cent of the details that an instruction leaves out
STEP_LIMIT = 150  # executed lines a call
INT_LIMIT = 999  # larger numbers end a call
SIZE_LIMIT = 40  # longer lists and texts end a call

# Problems of a split of seed 1 that no other seed has.
CHOSEN_ON = {"dev": 400, "test": 400}

# Share, in per cent, of all structures that each split owns.
SPLIT_SHARES = {"pretrain": 40, "seed": 8, "train": 32, "dev": 6, "test": 14}

# The most problems that one request may ask of a split.
SPLIT_LIMITS = {"pretrain": 40000, "seed": 4000, "train": 15000, "dev": 3000, "test": 7000}


# ------------------------------------------------------------------ random numbers


class Rng:
    """splitmix64: tiny, portable and good enough to draw programs."""

    MASK = (1 << 64) - 1

    def __init__(self, *key):
        text = "/".join(str(k) for k in key)
        self.state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return z ^ (z >> 31)

    def below(self, n):
        return self.next() % n

    def between(self, low, high):
        """An integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent):
        return self.below(100) < percent

    def pick(self, options):
        return options[self.below(len(options))]

    def weighted(self, options):
        """options: [(weight, value)] with integer weights."""
        n = self.below(sum(w for w, _ in options))
        for weight, value in options:
            if n < weight:
                return value
            n -= weight
        raise AssertionError("unreachable")

    def shuffled(self, items):
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out


# ------------------------------------------------------------------ grammar tables
# (code, what a precise instruction says, what a vague one says)
# {v}, {u}: variables; {k}: a small number; {m}: a larger one.

STEPS = [
    ("{v} + {k}", "plus {k}", "moved"),
    ("{v} - {k}", "less {k}", "moved"),
    ("{v} * {k}", "times {k}", "scaled"),
    ("{m} - {v}", "from {m}", "turned"),
    ("{v} % {k}", "rest by {k}", "reduced"),
    ("{v} // {k}", "over {k}", "reduced"),
    ("max({v}, {k})", "raised to {k}", "bounded"),
    ("min({v}, {m})", "cut to {m}", "bounded"),
]

MIXES = [
    ("{u} + {v}", "sum", "mix"),
    ("{u} - {v}", "difference", "mix"),
    ("{u} * {v}", "product", "mix"),
    ("max({u}, {v})", "larger", "choice"),
    ("min({u}, {v})", "smaller", "choice"),
]

CONDITIONS = [
    ("{v} > {k}", "above {k}", "big"),
    ("{v} >= {k}", "at least {k}", "big"),
    ("{v} < {k}", "below {k}", "small"),
    ("{v} <= {k}", "at most {k}", "small"),
    ("{v} % 2 == 0", "even", "fit"),
    ("{v} % 2 == 1", "odd", "fit"),
    ("{v} != {k}", "not {k}", "fit"),
    ("{v} == {k}", "equal {k}", "fit"),
    ("{v} > {k} and {v} < {m}", "between {k} and {m}", "inside"),
    ("{v} < {k} or {v} > {m}", "outside {k} to {m}", "outside"),
]

# {t}: the accumulator, {v}: what is folded in, {i}: the loop's own variable
UPDATES = [
    ("{t} += {v}", "sum of {items}", "total of {items}"),
    ("{t} += {v}", "sum of {items}", "total of {items}"),
    ("{t} -= {v}", "minus {items}", "total of {items}"),
    ("{t} += {k}", "{k} for each of {items}", "score of {items}"),
    ("{t} = {v} - {t}", "alternating {items}", "fold of {items}"),
    ("{t} = max({t}, {v})", "largest of {items}", "extreme of {items}"),
    ("{t} = min({t}, {v})", "smallest of {items}", "extreme of {items}"),
    ("{t} = {v}", "last of {items}", "one of {items}"),
]

# Names tell what a variable is for, as in real code; the first free one is taken.
NAMES = {
    "number": ["n"], "list": ["xs"], "argument": ["a", "b", "c"], "index": ["i"], "item": ["x"],
    "value": ["x", "y", "z", "w", "v"], "total": ["t", "s"], "list made": ["r"],
}


class Draft:
    """A program being written: names, lines and the parts of its instruction."""

    def __init__(self, rng):
        self.rng = rng
        self.used = set()
        self.lines = []
        self.said = []
        self.meant = {}  # line index: the detail of the instruction that the line carries out
        self.kinds = []  # kinds of the arguments

    def name(self, role):
        """The first name for this role that is not used so far."""
        name = next(n for n in NAMES[role] if n not in self.used)
        self.used.add(name)
        return name

    def head(self, *roles):
        """Write the `def` line for arguments in these roles; their names."""
        names = [self.name(role) for role in roles]
        self.kinds = ["list" if role == "list" else "number" for role in roles]
        self.lines.append(f"def f({', '.join(names)}):")
        return names

    def add(self, depth, text):
        self.lines.append("    " * depth + text)

    def say(self, precise, vague, line=None):
        """Put one detail of a line (the newest) into the instruction, or leave it out now and then."""
        detail = vague if self.rng.chance(VAGUE) else precise
        self.said.append(detail)
        self.meant[len(self.lines) - 1 if line is None else line] = detail

    def fill(self, row, **names):
        """One table row with small numbers drawn for {k} and {m}."""
        k = self.rng.between(2, 5)
        m = k + self.rng.between(3, 5)
        return [text.format(k=k, m=m, **names) for text in row]

    def step(self, v):
        return self.fill(self.rng.pick(STEPS), v=v)

    def mix(self, u, v):
        return self.fill(self.rng.pick(MIXES), u=u, v=v)

    def condition(self, v):
        return self.fill(self.rng.pick(CONDITIONS), v=v)


# ------------------------------------------------------------------ families


def family_flow(d):
    """Straight-line dataflow; which value is returned only the tests tell."""
    known = d.head(*["argument"] * d.rng.between(2, 3))
    for _ in range(d.rng.between(2, 4)):
        v = d.name("value")
        flow_step(d, 1, v, known)
        known.append(v)
    fresh = known[len(d.kinds):]
    if d.rng.chance(75):
        d.add(1, f"return {d.rng.pick(fresh)}")
    else:
        code, precise, vague = d.mix(*d.rng.shuffled(fresh)[:2])
        d.add(1, f"return {code}")
        d.say(precise, vague)
    return "values: " + ", ".join(d.said)


def flow_step(d, depth, target, known):
    """target = one step from a known variable, or a mix of two."""
    if d.rng.chance(50):
        code, precise, vague = d.step(d.rng.pick(known))
    else:
        code, precise, vague = d.mix(*d.rng.shuffled(known)[:2])
    d.add(depth, f"{target} = {code}")
    d.say(precise, vague)


def family_branch(d):
    """Straight-line code with one decision."""
    known = d.head(*["argument"] * d.rng.between(1, 2))
    for _ in range(d.rng.between(1, 2)):
        v = d.name("value")
        if len(known) > 1:
            flow_step(d, 1, v, known)
        else:
            code, precise, vague = d.step(known[0])
            d.add(1, f"{v} = {code}")
            d.say(precise, vague)
        known.append(v)
    code, precise, vague = d.condition(d.rng.pick(known))
    d.add(1, f"if {code}:")
    d.say("if " + precise, "if " + vague)
    target = d.rng.pick(known)
    flow_step(d, 2, target, known)
    if d.rng.chance(40):
        d.add(1, "else:")
        flow_step(d, 2, target, known)
    d.add(1, f"return {d.rng.pick([target, target, known[-1]])}")
    return "values: " + ", ".join(d.said)


def loop_head(d, xs):
    """A loop over a list; the name of its item."""
    x = d.name("item")
    style = d.rng.weighted([(6, "all"), (2, "tail"), (2, "front"), (2, "index")])
    if style == "all":
        d.add(1, f"for {x} in {xs}:")
    elif style == "tail":
        d.add(1, f"for {x} in {xs}[1:]:")
        d.say("without the first", "a part")
    elif style == "front":
        d.add(1, f"for {x} in {xs}[:-1]:")
        d.say("without the last", "a part")
    else:
        i, start = d.name("index"), d.rng.pick([0, 0, 1])
        d.add(1, f"for {i} in range({start}, len({xs})):")
        if start:
            d.say("without the first", "a part")
        d.add(2, f"{x} = {xs}[{i}]")
    return x


def range_head(d, n):
    """A loop over numbers; the name of its variable."""
    i = d.name("index")
    low = d.rng.between(0, 2)
    if d.rng.chance(50):
        d.add(1, f"for {i} in range({low}, {n} + 1):")
        d.say(f"{low} up to n", "numbers")
    else:
        d.add(1, f"for {i} in range({low}, {n}):")
        d.say(f"{low} up to before n", "numbers")
    return i


def family_fold(d, head=loop_head, role="list", items="items"):
    """One accumulator over a list."""
    (xs,) = d.head(role)
    t = d.name("total")
    update = d.rng.pick(UPDATES)
    start = 0 if d.rng.chance(50) else d.rng.between(1, 3)
    if "min(" in update[0]:
        start = d.rng.pick([9, 20])
    d.add(1, f"{t} = {start}")
    x = head(d, xs)
    v, depth = x, 2
    if d.rng.chance(55):
        v = d.name("value")
        code, precise, vague = d.step(x)
        d.add(2, f"{v} = {code}")
        d.say(precise, vague)
    guarded = d.rng.chance(60)
    if guarded:
        code, precise, vague = d.condition(d.rng.pick([v, x]))
        d.add(2, f"if {code}:")
        d.say("if " + precise, "if " + vague)
        depth = 3
    code, precise, vague = d.fill(update, t=t, v=v, items=items)
    d.add(depth, code)
    at = len(d.lines) - 1
    if guarded and d.rng.chance(25):
        code2, precise2, vague2 = d.fill(d.rng.pick(UPDATES[:4]), t=t, v=x, items="others")
        d.add(2, "else:")
        d.add(3, code2)
        d.say("else " + precise2, "else " + vague2)
    details = d.said
    d.said = []
    d.say(precise, vague, at)
    if start:
        d.say(f"start {start}", "a start", 1)
    d.said += details
    if d.rng.chance(25):
        code, precise, vague = d.step(t)
        d.add(1, f"return {code}")
        d.say("then " + precise, "then " + vague)
    else:
        d.add(1, f"return {t}")
    return ", ".join(d.said)


def family_range(d):
    """One accumulator over a range of numbers."""
    return family_fold(d, range_head, "number", "numbers")


def family_two(d):
    """Two accumulators in one loop; only the tests tell which is returned."""
    (xs,) = d.head("list")
    t, s = d.name("total"), d.name("total")
    for v in (t, s):
        start = d.rng.pick([0, 0, 0, 1, 2])
        d.add(1, f"{v} = {start}")
        if start:
            d.say(f"start {start}", "a start")
    x = loop_head(d, xs)
    plain = [row for row in UPDATES if "min(" not in row[0]]
    first, second = d.rng.shuffled(plain)[:2]
    code, precise, vague = d.fill(first, t=t, v=x, items="all")
    d.add(2, code)
    d.say(precise, vague)
    depth = 2
    if d.rng.chance(60):
        code, precise, vague = d.condition(x)
        d.add(2, f"if {code}:")
        d.say("if " + precise, "if " + vague)
        depth = 3
    v = d.rng.pick([x, x, t])
    code, precise, vague = d.fill(second, t=s, v=v, items="those" if v == x else "the first")
    d.add(depth, code)
    d.say(precise, vague)
    if d.rng.chance(70):
        d.add(1, f"return {d.rng.pick([s, t])}")
    else:
        code, precise, vague = d.mix(*d.rng.shuffled([s, t]))
        d.add(1, f"return {code}")
        d.say(precise, vague)
    return "two values: " + ", ".join(d.said)


def family_build(d):
    """A list made from a list."""
    (xs,) = d.head("list")
    out = d.name("list made")
    d.add(1, f"{out} = []")
    x = loop_head(d, xs)
    v, depth = x, 2
    if d.rng.chance(70):
        v = d.name("value")
        code, precise, vague = d.step(x)
        d.add(2, f"{v} = {code}")
        d.say(precise, vague)
    if d.rng.chance(65):
        code, precise, vague = d.condition(d.rng.pick([v, x]))
        d.add(2, f"if {code}:")
        d.say("if " + precise, "if " + vague)
        depth = 3
    d.add(depth, f"{out}.append({d.rng.pick([v, v, x])})")
    if depth == 3 and d.rng.chance(35):
        code, precise, vague = d.step(x)
        d.add(2, "else:")
        d.add(3, f"{out}.append({code})")
        d.say("else " + precise, "else " + vague)
    d.add(1, f"return {out}")
    return ", ".join(["list of items"] + d.said)


def family_pairs(d):
    """Neighbours in a list."""
    (xs,) = d.head("list")
    t, i, v = d.name("total"), d.name("index"), d.name("value")
    start = d.rng.pick([0, 0, 1, 2])
    d.add(1, f"{t} = {start}")
    d.add(1, f"for {i} in range(1, len({xs})):")
    code, precise, vague = d.mix(*d.rng.shuffled([f"{xs}[{i}]", f"{xs}[{i} - 1]"]))
    d.add(2, f"{v} = {code}")
    d.say(f"{precise} of neighbours", f"{vague} of neighbours")
    depth = 2
    if d.rng.chance(65):
        code, precise, vague = d.condition(v)
        d.add(2, f"if {code}:")
        d.say("if " + precise, "if " + vague)
        depth = 3
    if start:
        d.say(f"start {start}", "a start", 1)
    plain = [row for row in UPDATES if "min(" not in row[0]]
    code, precise, vague = d.fill(d.rng.pick(plain), t=t, v=d.rng.pick([v, v, v, i]), items="those")
    d.add(depth, code)
    d.say(precise, vague)
    d.said.insert(0, d.said.pop())
    d.add(1, f"return {t}")
    return ", ".join(d.said)


def family_down(d):
    """A while loop that counts down."""
    (n,) = d.head("number")
    t = d.name("total")
    start, stop, by = d.rng.pick([0, 0, 1, 2]), d.rng.between(0, 2), d.rng.between(1, 3)
    d.add(1, f"{t} = {start}")
    d.add(1, f"while {n} > {stop}:")
    plain = [row for row in UPDATES if "min(" not in row[0]]
    code, precise, vague = d.fill(d.rng.pick(plain), t=t, v=n, items="numbers")
    d.say(precise, vague)
    d.say(f"while above {stop}", "down")
    done = d.said[0]
    depth = 2
    if d.rng.chance(40):
        test, precise, vague = d.condition(n)
        d.add(2, f"if {test}:")
        d.say("if " + precise, "if " + vague)
        depth = 3
    body = [(depth, code), (2, f"{n} -= {by}")]
    if depth == 2 and d.rng.chance(40):
        body.reverse()
    for depth, text in body:
        d.add(depth, text)
        if text == code:
            d.meant[len(d.lines) - 1] = done
    d.say(f"by {by}", "by steps", d.lines.index(f"        {n} -= {by}"))
    if start:
        d.say(f"start {start}", "a start", 1)
    if d.rng.chance(35):
        code, precise, vague = d.step(t)
        d.add(1, f"return {code}")
        d.say("then " + precise, "then " + vague)
    else:
        d.add(1, f"return {d.rng.pick([t, t, t, n])}")
    return ", ".join(d.said)


FAMILIES = [
    (24, "flow", family_flow),
    (14, "branch", family_branch),
    (18, "fold", family_fold),
    (12, "two", family_two),
    (8, "range", family_range),
    (10, "build", family_build),
    (8, "pairs", family_pairs),
    (6, "down", family_down),
]


def draw_program(rng):
    """(family, instruction, lines, what each line means, kinds of the arguments)"""
    name, build = rng.weighted([(w, (name, build)) for w, name, build in FAMILIES])
    draft = Draft(rng)
    instruction = build(draft)
    return name, instruction, draft.lines, draft.meant, draft.kinds


# ------------------------------------------------------------------ structure and splits

WORD = re.compile(r"[A-Za-z_]\w*")
RESERVED = set("def f for in if else while return range len and or not max min append".split())


def structure(lines):
    """The program with canonical names and masked numbers."""
    seen = {}

    def canonical(match):
        word = match.group(0)
        if word in RESERVED:
            return word
        return seen.setdefault(word, f"v{len(seen)}")

    masked = re.sub(r"\d+", "#", "\n".join(lines))
    return WORD.sub(canonical, masked)


def split_of(shape):
    """The one split that owns this structure."""
    n = int.from_bytes(hashlib.sha256(shape.encode()).digest()[:8], "big") % 100
    for split, share in SPLIT_SHARES.items():
        if n < share:
            return split
        n -= share
    raise AssertionError("the shares must add up to 100")


# ------------------------------------------------------------------ execution


class Stop(Exception):
    """A call ran too long or its values grew too large."""


class Raised:
    """The outcome of a call that ended with an error."""

    def __init__(self, name):
        self.name = name


def too_large(value):
    if isinstance(value, int):
        return abs(value) > INT_LIMIT
    return len(value) > SIZE_LIMIT


def compiled(lines):
    space = {}
    exec(compile("\n".join(lines), "mini", "exec"), space)
    return space["f"]


def call(function, args, events=None, trusted=False):
    """Run one call within the limits; its value or a Raised.

    events: a list that receives (line, {variable: new value}), one entry an
    executed line, as text and in order; the `def` line first.
    trusted: the program is known to end; do not watch it, which is faster.
    """
    state = {"left": STEP_LIMIT, "line": None, "seen": {}}

    def record(frame):
        now = {name: repr(value) for name, value in frame.f_locals.items()}
        if state["line"] is not None:
            events.append((state["line"], {n: v for n, v in now.items() if state["seen"].get(n) != v}))
        state["seen"] = now

    def watch(frame, what, arg):
        state["left"] -= 1
        if state["left"] < 0 or any(too_large(v) for v in frame.f_locals.values()):
            raise Stop()
        if events is not None:
            if what == "line":
                record(frame)
                state["line"] = frame.f_lineno
            elif what == "return" and state["line"] is not None:
                record(frame)
                if state.get("error"):
                    events.append((state["line"], {"__exception__": state["error"] + "()"}))
                else:
                    events.append((state["line"], {"__return__": repr(arg)}))
            elif what == "exception":
                state["error"] = arg[0].__name__
        return watch

    def enter(frame, what, arg):
        if frame.f_code is not function.__code__:
            return None
        if events is not None:
            state["seen"] = {n: repr(v) for n, v in frame.f_locals.items()}
            events.append((1, dict(state["seen"])))
        return watch

    args = [list(a) if isinstance(a, list) else a for a in args]
    before = sys.gettrace()
    if not trusted:
        sys.settrace(enter)
    try:
        value = function(*args)
    except Stop:
        return Raised("Stop")
    except Exception as error:  # wrong versions may raise anything
        return Raised(type(error).__name__)
    finally:
        sys.settrace(before)
    return Raised("Stop") if value is None or too_large(value) else value


def same(a, b):
    return type(a) is type(b) and a == b


def steps_of(events):
    """State-changing steps only, numbered from 0: [(step, line, {variable: value})]"""
    changes = [(line, change) for line, change in events if change]
    return [(k, line, change) for k, (line, change) in enumerate(changes)]


# ------------------------------------------------------------------ tests


def draw_arguments(rng, kinds):
    """Arguments from 1 to 9; all numbers of a call differ, so that a value tells its origin."""
    length = rng.weighted([(4, 2), (5, 3), (3, 4)])
    digits = list(range(1, 10))
    draw = lambda: digits.pop(rng.below(len(digits)))
    return [[draw() for _ in range(length)] if kind == "list" else draw() for kind in kinds]


def draw_tests(rng, lines, kinds):
    """[(arguments, value)], or None when the program is dull, raises or grows."""
    function = compiled(lines)
    tests, seen = [], set()
    for _ in range(3 * TESTS):
        args = draw_arguments(rng, kinds)
        if repr(args) in seen:
            continue
        seen.add(repr(args))
        value = call(function, args, trusted=True)
        if isinstance(value, Raised):
            return None
        if isinstance(value, int) and abs(value) > 60:
            continue
        tests.append((args, value))
        if len(tests) == TESTS:
            break
    if len(tests) < TESTS or len({repr(v) for _, v in tests}) < 4:
        return None
    return tests


def test_text(test):
    args, value = test
    return f"assert f({', '.join(map(repr, args))}) == {value!r}"


# ------------------------------------------------------------------ bugs
# Each maker yields (line index, wrong text) for one kind of bug.

TOKEN = re.compile(r"[A-Za-z_]\w*|\d+|[<>=!+\-*/%]=|//|[^\s\w]|\s+")
COMPARISONS = {
    ">": [">=", "<"], "<": ["<=", ">"], ">=": [">", "<="], "<=": ["<", ">="],
    "==": ["!="], "!=": ["=="],
}
OPERATORS = {
    "+": ["-", "*"], "-": ["+"], "*": ["+", "-"], "//": ["%", "-"], "%": ["//", "-"],
    "+=": ["-="], "-=": ["+="], "max": ["min"], "min": ["max"],
}
COMPLEMENTS = {">": "<=", "<=": ">", "<": ">=", ">=": "<", "==": "!=", "!=": "=="}
INIT = re.compile(r"^    (\w+) = (\d+)$")


def replace_tokens(text, choices):
    """Every version of text with one token replaced as choices(token) says."""
    tokens = TOKEN.findall(text)
    for i, token in enumerate(tokens):
        for new in choices(token):
            yield "".join(tokens[:i] + [new] + tokens[i + 1:])


def is_head(text):
    return text.lstrip().startswith(("for ", "while ", "def ", "else"))


def bug_operator(lines):
    for i, text in enumerate(lines):
        if not text.lstrip().startswith(("if ", "for ", "while ", "def ")) and "[" not in text:
            for new in replace_tokens(text, lambda token: OPERATORS.get(token, [])):
                yield i, new


def bug_comparison(lines):
    for i, text in enumerate(lines):
        if text.lstrip().startswith(("if ", "while ")):
            for new in replace_tokens(text, lambda token: COMPARISONS.get(token, [])):
                yield i, new


def bug_constant(lines):
    def nearby(token):
        if not token.isdigit():
            return []
        k = int(token)
        return [str(n) for n in (k - 1, k + 1, k + 2) if n > 0]

    for i, text in enumerate(lines):
        if not text.lstrip().startswith(("for ", "def ")) and not INIT.match(text) and "[" not in text:
            for new in replace_tokens(text, nearby):
                yield i, new


def numbers_before(lines, index):
    """Names of integers that exist for sure before this line."""
    names = []
    for text in lines[:index]:
        found = re.match(r"\s*(?:for )?(\w+) (?:=|in) ", text)
        if found and not text.endswith("= []") and found.group(1) not in names:
            names.append(found.group(1))
    head = WORD.findall(lines[0])[2:]
    lists = set(re.findall(r"(?:in |len\()(\w+)[\[:)]", "\n".join(lines))) - {"range"}
    return [n for n in head if n not in lists] + names


def bug_variable(lines):
    for i, text in enumerate(lines[1:], 1):
        if is_head(text) or text.lstrip().startswith("return "):
            continue
        names = numbers_before(lines, i)
        target = re.match(r"\s*(\w+(?:\.append\(| [+-]?= )|if )", text)
        if not target:
            continue
        start = target.end()
        others = lambda token: [n for n in names if n != token] if token in names else []
        for new in replace_tokens(text[start:], others):
            yield i, text[:start] + new


def bug_range(lines):
    for i, text in enumerate(lines):
        found = re.match(r"(\s*for \w+ in )(.*):$", text)
        if not found:
            continue
        head, what = found.groups()
        bounds = re.match(r"range\((\d+), (.*)\)$", what)
        if bounds:
            low, high = int(bounds.group(1)), bounds.group(2)
            news = [f"range({n}, {high})" for n in (low - 1, low + 1) if n >= 0]
            if high.endswith(" + 1"):
                news.append(f"range({low}, {high[:-4]})")
            else:
                news.append(f"range({low}, {high} - 1)")
                if not high.startswith("len("):
                    news.append(f"range({low}, {high} + 1)")
        elif what.endswith("]"):
            name, part = what[:-1].split("[")
            news = [name, name + ("[:-1]" if part == "1:" else "[1:]")]
        else:
            news = [what + "[1:]", what + "[:-1]"]
        for new in news:
            yield i, f"{head}{new}:"


def bug_condition(lines):
    """The decision turned round, or one half of it left out."""
    for i, text in enumerate(lines):
        found = re.match(r"(\s*if )(.*):$", text)
        if not found:
            continue
        head, test = found.groups()
        halves = re.split(r" and | or ", test)
        if len(halves) == 2:
            for half in halves:
                yield i, f"{head}{half}:"
            yield i, head + (test.replace(" and ", " or ") if " and " in test else test.replace(" or ", " and ")) + ":"
        else:
            for new in replace_tokens(text, lambda token: [COMPLEMENTS[token]] if token in COMPLEMENTS else []):
                yield i, new


def bug_init(lines):
    for i, text in enumerate(lines):
        found = INIT.match(text)
        if found:
            k = int(found.group(2))
            for n in (k - 2, k - 1, k + 1, k + 2, k + 3):
                if n >= 0:
                    yield i, f"    {found.group(1)} = {n}"


def bug_return(lines):
    text = lines[-1]
    what = text[len("    return "):]
    names = numbers_before(lines, len(lines) - 1)
    if what in names:
        for name in names:
            if name != what:
                yield len(lines) - 1, f"    return {name}"
    elif what.isalnum():
        return
    else:
        for name in WORD.findall(what):
            if name in names:
                yield len(lines) - 1, f"    return {name}"


BUGS = [
    (3, "operator", bug_operator),
    (4, "comparison", bug_comparison),
    (3, "constant", bug_constant),
    (3, "variable", bug_variable),
    (4, "range", bug_range),
    (4, "condition", bug_condition),
    (4, "init", bug_init),
    (3, "return", bug_return),
]


def draw_bug(rng, lines, tests):
    """(kind, line index, wrong lines, test to show), or None.

    The test to show fails with few steps, so that its trace is short.
    """
    options = [(weight, (kind, maker)) for weight, kind, maker in BUGS]
    for _ in range(10):
        kind, maker = rng.weighted(options)
        found = [(i, text) for i, text in maker(lines) if text != lines[i]]
        if not found:
            continue
        index, text = rng.pick(found)
        wrong = lines[:index] + [text] + lines[index + 1:]
        shown = failing_test(wrong, tests)
        if shown is not None:
            return kind, index, wrong, shown
    return None


def failing_test(wrong, tests):
    """The failing test with the shortest trace; None if none fails or one explodes."""
    function = compiled(wrong)
    ends = not any("while " in text for text in wrong)  # all other loops are over short lists
    best = None
    for test in tests:
        value = call(function, test[0], trusted=ends)
        if isinstance(value, Raised):
            return None
        if not same(value, test[1]):
            events = []
            call(function, test[0], events)
            size = (len(steps_of(events)), len(repr(test)), repr(test))
            if best is None or size < best[0]:
                best = (size, test)
    return best and best[1]


# ------------------------------------------------------------------ seed demonstrations


def walk(meant, last):
    """The lines after the `def` up to index `last`, each with what the instruction says of it."""
    return ", ".join(f"{i + 1} {meant[i]}" if i in meant else f"{i + 1}" for i in range(1, last + 1))


def rationale(lines, meant, wrong, index, kind, test):
    """A walk to the wrong line, what is wrong with it, and one fact of the trace."""
    events = []
    got = call(compiled(wrong), test[0], events)
    cause = f"{walk(meant, index)}: wrong {kind}"
    fact = trace_fact(lines, wrong, index, kind, test, got, events)
    return f"{cause} {fact}" if fact else cause


def trace_fact(lines, wrong, index, kind, test, got, events):
    steps = steps_of(events)
    wanted = test[1]
    if kind == "return":
        for step, _, change in reversed(steps[:-1]):
            for name, value in change.items():
                if value == repr(wanted):
                    return f"at ({step}) {name}={value} is wanted"
        step, _, change = steps[-1]
        return f"at ({step}) {got!r} should be {wanted!r}"
    first = first_visit(events, index + 1)
    if first is None:
        return None
    before, step, change = first
    text = lines[index].strip()
    if text.startswith("if ") or text.startswith("while "):
        return decision_fact(events, text, wrong[index].strip(), index + 1)
    if text.startswith("for "):
        return visit_fact(events, steps, lines, index, test)
    after = run_line(text, before)
    target = WORD.match(text).group(0)
    value = change.get(target, before.get(target))
    if change and target not in change:  # a changed `return a + b`
        target, value = next(iter(change.items()))
    if step is None and value is not None:
        step = last_step_of(events, target, index + 1, before)
    if after is not None and target in after and repr(after[target]) != value:
        return f"at ({step}) {target}={value} should be {after[target]!r}"
    if target == "__return__":
        return f"at ({step}) {target}={value} should be {wanted!r}"
    return f"at ({step}) {target}={value} is off" if value is not None else None


def visits(events, line):
    """[(values before, step or None, change)] for each visit of a line."""
    out, values, step = [], {}, 0
    for at, change in events:
        if at == line:
            out.append((dict(values), step if change else None, change))
        values.update(change)
        step += 1 if change else 0
    return out


def first_visit(events, line):
    found = visits(events, line)
    changed = [v for v in found if v[2]]
    return (changed or found or [None])[0]


def run_line(text, values):
    """The variables after one correct line, from the values of the wrong run."""
    space = {name: eval(value, {}) for name, value in values.items() if not name.startswith("__")}
    try:
        exec(text, {}, space)
    except Exception:
        return None
    return space


def decision_fact(events, right, wrong, line):
    """The first visit at which the right and the wrong decision differ."""
    for values, _, _ in visits(events, line):
        space = {name: eval(value, {}) for name, value in values.items()}
        right_test, wrong_test = (text.split(" ", 1)[1][:-1] for text in (right, wrong))
        if bool(eval(right_test, {}, space)) != bool(eval(wrong_test, {}, space)):
            name = next(w for w in WORD.findall(right_test) if w in space)
            step = last_step_of(events, name, line, values)
            verdict = "must pass" if eval(right_test, {}, space) else "must not pass"
            return f"at ({step}) {name}={values[name]} {verdict}"
    return None


def last_step_of(events, name, line, values):
    """The number of the step that gave `name` the value it has in `values`."""
    step, found, now = 0, 0, {}
    for at, change in events:
        if at == line and now == values:
            return found
        if name in change:
            found = step
        now.update(change)
        step += 1 if change else 0
    return found


def visit_fact(events, steps, lines, index, test):
    """The first turn of a loop that differs from the right program's."""
    right = []
    call(compiled(lines), test[0], right)
    mine = [change for at, change in right if at == index + 1 and change]
    theirs = [(k, change) for k, at, change in steps if at == index + 1]
    for n, (k, change) in enumerate(theirs):
        name, value = next(iter(change.items()))
        if n >= len(mine):
            return f"at ({k}) {name}={value} is a turn too many"
        if mine[n].get(name) != value:
            return f"at ({k}) {name}={value} should be {mine[n].get(name, value)}"
    if theirs:
        k, change = theirs[-1]
        name, value = next(iter(change.items()))
        return f"at ({k}) {name}={value} is not the last turn"
    return "no turn"


# ------------------------------------------------------------------ problems


def make_problem(rng, split, family, instruction, lines, meant, kinds):
    """The row of one problem without its id, or None if it does not work out."""
    tests = draw_tests(rng, lines, kinds)
    if tests is None:
        return None
    row = {"split": split, "family": family, "instruction": instruction, "entry_point": "f",
           "reference": "\n".join(lines) + "\n"}
    if split == "pretrain":
        row["tests"] = [test_text(t) for t in tests]
        row["rationale"] = walk(meant, len(lines) - 1)
        return row
    bug = draw_bug(rng, lines, tests)
    if bug is None:
        return None
    kind, index, wrong, shown = bug
    row["tests"] = [test_text(t) for t in [shown] + [t for t in tests if t is not shown]]
    row.update(buggy="\n".join(wrong) + "\n", mutation=kind, bug_line=index + 1)
    if split == "seed":
        row["rationale"] = rationale(lines, meant, wrong, index, kind, shown)
        row["fix"] = f"{index + 1} {lines[index].strip()}"
    return row


def generate(seed, counts):
    """Yield `counts[split]` problems of each split, in the order in which they are found.

    Candidate n has random numbers of its own and belongs to one split by its
    structure, so a split does not depend on what else is asked for.
    """
    missing = {split: count for split, count in counts.items() if count}
    chosen_on = set() if seed == 1 else programs_chosen_on(missing)
    per_structure, programs, n, idle = {}, set(chosen_on), 0, 0
    while missing:
        n, idle = n + 1, idle + 1
        if idle > 100000:
            split, count = next(iter(missing.items()))
            raise RequestError(f"split {split!r}: found no more than {counts[split] - count} of {counts[split]} problems")
        rng = Rng("mini", seed, n)
        family, instruction, lines, meant, kinds = draw_program(rng)
        shape = structure(lines)
        split, text = split_of(shape), "\n".join(lines)
        if split not in missing or text in programs or per_structure.get(shape, 0) >= MAX_PER_STRUCTURE:
            continue
        row = make_problem(rng, split, family, instruction, lines, meant, kinds)
        if row is None or row.get("buggy", "").rstrip("\n") in chosen_on:
            continue
        programs.add(text)
        per_structure[shape] = per_structure.get(shape, 0) + 1
        yield {"problem_id": f"mini/{split}/{counts[split] - missing[split]:05d}", **row}
        idle = 0
        missing[split] -= 1
        if not missing[split]:
            del missing[split]


def programs_chosen_on(splits):
    """The programs, right and wrong, of these splits of seed 1 that no other seed may have."""
    counts = {split: count for split, count in CHOSEN_ON.items() if split in splits}
    return {row[which].rstrip("\n") for row in generate(1, counts) for which in ("reference", "buggy")}


# ------------------------------------------------------------------ command line


class RequestError(Exception):
    """The request cannot be met."""


def read_request(text):
    """(seed, {split: count}) or RequestError."""
    try:
        request = json.loads(text)
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {error}") from None
    if not isinstance(request, dict) or not isinstance(request.get("splits"), dict):
        raise RequestError('the request must look like {"seed": 1, "splits": {"train": 100}}')
    unknown = sorted(set(request) - {"seed", "splits"})
    if unknown:
        raise RequestError(f"unknown key {unknown[0]!r}; known: seed, splits")
    if not is_count(request.get("seed", 1)):
        raise RequestError("seed must be an integer of at least 0")
    for split, count in request["splits"].items():
        if split not in SPLIT_SHARES:
            raise RequestError(f"unknown split {split!r}; known: {', '.join(SPLIT_SHARES)}")
        if not is_count(count):
            raise RequestError(f"split {split!r}: the count must be an integer of at least 0")
        if count > SPLIT_LIMITS[split]:
            raise RequestError(f"split {split!r}: {count} asked for, at most {SPLIT_LIMITS[split]} can be made")
    return request.get("seed", 1), request["splits"]


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def main():
    try:
        seed, splits = read_request(sys.stdin.read())
        rows = {split: [] for split in SPLIT_SHARES}
        for row in generate(seed, splits):
            rows[row["split"]].append(json.dumps(row) + "\n")
        for lines in rows.values():
            sys.stdout.writelines(lines)
    except RequestError as error:
        print(f"mini_python: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
