"""Finds inputs like those of the visible tests, and asks a trusted program what they give.

The job is (reference, setup, entry_point, seed, problem_id, more, test, ...); a frame (test, text) a new test comes
back. An input starts from the arguments of one visible call, some taken from another, and is varied by type. What all
visible calls keep to is kept: numbers, and those in lists, that are not negative; lists that are sorted or without
repeats; arguments that are another's length.
"""

import ast
import itertools

Program, assert_text, call_text = (shared[b"asserts"][name] for name in ("Program", "assert_text", "call_text"))
Random = shared[b"mutate"]["Random"]
TRIES = 12  # inputs tried for each test wanted
MAX_LENGTH = 12  # a sequence that is not longer to begin with does not grow beyond
CONSTRUCTORS = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple, "dict": dict, "float": float}


def literal_of(node):
    """The value of a literal, in which `set([...])` and its like may stand. ValueError if it is something else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords and len(node.args) < 2:
        if node.func.id in CONSTRUCTORS:
            return CONSTRUCTORS[node.func.id](*map(literal_of, node.args))
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind([literal_of(item) for item in node.elts])
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {literal_of(key): literal_of(value) for key, value in zip(node.keys, node.values)}
    return ast.literal_eval(node)


def calls(tests, name):
    """The arguments of every call of the function whose arguments are literals."""
    found = []
    for test in tests:
        for node in ast.walk(ast.parse(test)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name and node.args and not node.keywords:
                try:
                    found.append([literal_of(argument) for argument in node.args])
                except (ValueError, TypeError):
                    pass
    return found


class Shape:
    """What the visible values of one argument, or of the items of one, have in common."""

    def __init__(self, values, depth=0):
        self.values = values
        numbers = [value for value in values if type(value) in (int, float)]
        self.least = None if not numbers or min(numbers) < 0 else int(min(numbers) >= 1)
        lists = [value for value in values if isinstance(value, (list, tuple, set, frozenset))]
        self.items = None
        if lists and depth < 4:
            items = [item for value in lists for item in value]
            self.items = Shape(items, depth + 1) if items else None
        ordered = [list(value) for value in lists if isinstance(value, (list, tuple)) and len(value) > 1]
        self.sorted = bool(ordered) and all(comparable(value) and value == sorted(value) for value in ordered)
        self.distinct = bool(ordered) and all(len(set(map(repr, value))) == len(value) for value in ordered)
        self.shortest, self.longest = min(map(len, lists), default=0), max(map(len, lists), default=0)
        self.letters = sorted({letter for value in values if isinstance(value, str) for letter in value})


def comparable(items):
    return all(type(item) in (int, float) for item in items) or all(type(item) is str for item in items)


def vary(value, shape, random):
    """Another value of the same type."""
    kind = type(value)
    if kind is bool:
        return not value
    if kind is int or kind is float:
        numbers = [number for number in shape.values if type(number) is kind] or [value]
        low, high = min(numbers), max(numbers)
        between = low + random.below(int(min(high - low, 10**9)) + 3)
        choices = [value + 1, value - 1, -value, value * 2, kind(0), kind(1), between, high + 1]
        number = choices[random.below(len(choices))]
        return number if shape.least is None else max(abs(number), kind(shape.least))
    if kind is str:
        letters = shape.letters or ["a"]
        at = random.below(len(value) + 1)
        letter = letters[random.below(len(letters))]
        before, after, another = value[:at], value[at + 1 :], shape.values[random.below(len(shape.values))]
        choices = [before + letter + value[at:], before + after, before + letter + after, value[::-1], before, another]
        return str(choices[random.below(len(choices))])
    if kind in (list, tuple, set, frozenset):
        return vary_items(kind, sorted(value, key=repr) if kind in (set, frozenset) else list(value), shape, random)
    if kind is dict and value:
        key = list(value)[random.below(len(value))]
        return {**value, key: vary(value[key], Shape(list(value.values())), random)}
    return value


def vary_items(kind, items, shape, random):
    inner = shape.items or Shape(items)
    at = random.below(len(items) + 1)
    choice = random.below(5)
    if choice == 0 and len(items) > min(shape.shortest, 1):
        del items[at : at + 1]
    elif choice == 1 and inner.values and len(items) < max(MAX_LENGTH, shape.longest):
        items.insert(at, inner.values[random.below(len(inner.values))])
    elif choice == 2:
        items = random.shuffled(items)
    elif items:
        for _ in range(1 + random.below(2)):
            place = random.below(len(items))
            items[place] = vary(items[place], inner, random)
    if shape.distinct and kind in (list, tuple):
        items = list({repr(item): item for item in items}.values())
    if shape.sorted and comparable(items):
        items.sort()
    return kind(items)


def is_length(value, other):
    return type(value) is int and isinstance(other, (list, tuple, str)) and value == len(other)


def inputs(examples, random):
    """Endless lists of arguments."""
    count = len(examples[0])
    examples = [example for example in examples if len(example) == count]
    shapes = [Shape(list(values)) for values in zip(*examples)]
    pairs = itertools.permutations(range(count), 2)
    sizes = [(place, other) for place, other in pairs if all(is_length(e[place], e[other]) for e in examples)]
    while True:
        arguments = list(examples[random.below(len(examples))])
        if random.below(3) == 0:
            place = random.below(count)
            arguments[place] = examples[random.below(len(examples))][place]
        for _ in range(1 + random.below(3)):
            place = random.below(count)
            arguments[place] = vary(arguments[place], shapes[place], random)
        for place, other in sizes:
            arguments[place] = len(arguments[other])
        yield arguments


def run(job, send):
    reference, setup, name, seed, problem_id, more, *tests = (field.decode() for field in job)
    try:
        program = Program(reference, setup)
        examples = calls(tests, name)
    except BaseException:
        return send(b"done")
    wanted, seen = int(more), {call_text(name, example) for example in examples}
    source = inputs(examples, Random(seed, problem_id)) if examples else iter(())
    for arguments in itertools.islice(source, wanted * TRIES):
        try:
            call = call_text(name, arguments)
            if call in seen:
                continue
            seen.add(call)
            send(b"test", assert_text(*program.value(call)).encode())
        except (ValueError, TypeError, RecursionError, OverflowError, MemoryError):
            continue
        wanted -= 1
        if not wanted:
            break
    send(b"done")
