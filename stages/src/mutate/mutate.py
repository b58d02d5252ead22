"""Wrong versions of a correct program: one small edit each (`edits.py`, `structure.py`), in a seeded order.

The job is (source, seed, problem_id, kinds, most), kinds being `kind=weight,...`. A frame a mutant comes back: (mutant,
kind, source). Kinds are tried in proportion to their weights; equal ones take turns. Formatting
and comments outside the edited node stay.
"""

import ast

Edits = shared[b"structure"]["StructureEdits"]
MASK = (1 << 64) - 1


class Random:
    """splitmix64, keyed by the seed and the problem."""

    def __init__(self, *key):
        state = 0xCBF29CE484222325  # FNV-1a
        for byte in "/".join(key).encode():
            state = (state ^ byte) * 0x100000001B3 & MASK
        self.state = state

    def below(self, count):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
        return (z ^ (z >> 31)) % count

    def shuffled(self, items):
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items


def mutants(source, weights, random):
    """(kind, source) for every edit that parses and differs, kinds by their weights."""
    edits = Edits(source)
    by_kind = {kind: [] for kind in weights}
    for edit in edits.found:
        if edit[0] in by_kind:
            by_kind[edit[0]].append(edit)
    kinds = random.shuffled(sorted(by_kind))
    queues = {kind: random.shuffled(by_kind[kind]) for kind in kinds}
    turns = dict.fromkeys(kinds, 1)
    seen = {source}
    while kinds := [kind for kind in kinds if queues[kind]]:
        kind = min(kinds, key=lambda kind: turns[kind] / weights[kind])
        turns[kind] += 1
        _, start, end, new = queues[kind].pop()
        text = (edits.data[:start] + new + edits.data[end:]).decode()
        if text in seen:
            continue
        seen.add(text)
        try:
            ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        yield kind, text


def run(job, send):
    source, seed, problem_id, kinds, most = (field.decode() for field in job)
    weights = {kind: float(weight) for kind, weight in (part.split("=") for part in kinds.split(","))}
    try:
        random = Random(seed, problem_id)
        for count, (kind, text) in enumerate(mutants(source, weights, random)):
            if count == int(most):
                break
            send(b"mutant", kind.encode(), text.encode())
    except (SyntaxError, ValueError, RecursionError) as error:
        send(b"invalid", str(error).encode("utf-8", "backslashreplace"))
    send(b"done")
