"""Short, address-free text for any value, without running the candidate's code.

Exact built-in types are rendered as Python's `repr` does, cut to a number of items and characters; sets are sorted;
instances of the candidate's classes are shown by their fields, never by their own `__repr__`.
"""

import collections
import itertools
import sys
import types

MAX_DEPTH, MAX_SORTED, MAX_BITS = 4, 1000, 200

mro_of = type.__dict__["__mro__"].__get__
names_of = type.__dict__["__dict__"].__get__
name_of = type.__dict__["__name__"].__get__
arguments = BaseException.__dict__["args"].__get__
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, types.ModuleType)
SAFE_REPR = {("fractions", "Fraction"), ("decimal", "Decimal"), ("datetime", "date"), ("datetime", "datetime"),
             ("datetime", "timedelta"), ("datetime", "time")}  # fmt: skip


NUMBERS = frozenset((int, float, bool, type(None), complex))
FLAT = NUMBERS | {str}
BIG = 1 << MAX_BITS


class Full(Exception):
    """The text is longer than it may be."""


def plain_float(value):
    return float.__repr__(value)


def flat(value, max_chars, max_items):
    """What `repr` says of a number, a short string or a container of them, which is most of what programs hold, at a
    small part of the cost of looking at each item; None where there is more to it."""
    kind = type(value)
    if kind in FLAT:
        if kind is str and len(value) > max_chars or kind is int and not -BIG < value < BIG:
            return None
        text = repr(value)
        return text if len(text) <= max_chars else None
    if kind is list or kind is tuple:
        items = head = value if len(value) <= max_items else value[:max_items]
    elif kind is dict:
        head = value if len(value) <= max_items else dict(itertools.islice(value.items(), max_items))
        items = [*head, *head.values()]
    elif kind is set and value and len(value) <= max_items:
        items = list(value)
    else:
        return None
    kinds = set(map(type, items))
    if not kinds <= FLAT:
        return None
    if int in kinds:
        numbers = items if len(kinds) == 1 else [item for item in items if type(item) is int]
        if min(numbers) <= -BIG or max(numbers) >= BIG:
            return None
    strings = str in kinds
    if strings and sum([len(item) for item in items if type(item) is str]) > max_chars:
        return None
    if kind is set:
        if len(kinds) > 1 or not kinds <= {int, str}:
            return None
        text = "{" + repr(sorted(items))[1:-1] + "}"
    elif head is value:
        text = repr(value)
    elif max_items > 1:
        text = repr(head)
        text = f"{text[:-1]}, ...+{len(value) - max_items}{text[-1]}"
    else:
        return None
    if len(text) <= max_chars:
        return text
    return None if strings else text[: max(max_chars - 3, 0)] + "..."


def renderer(max_chars, max_items):
    """A function from a value to its text, of at most `max_chars` characters."""

    def render(value):
        text = flat(value, max_chars, max_items)
        return in_full(value) if text is None else text

    def in_full(value):
        parts, room, open_ids = [], max_chars + 1, set()

        def put(text):
            nonlocal room
            parts.append(text)
            room -= len(text)
            if room <= 0:
                raise Full

        def sequence(items, count, depth, opening, closing):
            put(opening)
            for index, item in enumerate(items):
                if index == max_items:
                    put(f", ...+{count - max_items}")
                    break
                if index:
                    put(", ")
                walk(item, depth + 1)
            put(closing)

        def pairs(items, count, depth, opening, closing):
            put(opening)
            for index, (key, item) in enumerate(items):
                if index == max_items:
                    put(f", ...+{count - max_items}")
                    break
                if index:
                    put(", ")
                walk(key, depth + 1)
                put(": ")
                walk(item, depth + 1)
            put(closing)

        def fields(name, items, depth):
            put(name + "(")
            for index, (key, item) in enumerate(items):
                if index == max_items:
                    put(", ...")
                    break
                if index:
                    put(", ")
                put(key + "=")
                walk(item, depth + 1)
            put(")")

        def in_order(value, kind):
            items = list((set if issubclass(kind, set) else frozenset).__iter__(value))
            if all(type(item) is int for item in items) or all(type(item) is str for item in items):
                return sorted(items)
            if len(items) > MAX_SORTED:
                return items
            whole = renderer(max_chars, max_items)
            return sorted(items, key=whole)

        def walk(value, depth):
            kind = type(value)
            if kind is str:
                if len(value) > room:
                    put(repr(value[:room]))
                    put("...")
                else:
                    put(repr(value))
                return
            if kind is int:
                bits = int.bit_length(value)
                put(repr(value) if bits <= MAX_BITS else f"<int of {bits} bits>")
                return
            if value is None or kind is bool or kind is float or kind is complex or kind is range:
                put(repr(value))
                return
            if kind is bytes or kind is bytearray:
                put(repr(value[: max(room, 1)]))
                return
            if depth > MAX_DEPTH:
                put("...")
                return
            if id(value) in open_ids:
                put("<cycle>")
                return
            open_ids.add(id(value))
            container(value, kind, depth)
            open_ids.discard(id(value))

        def container(value, kind, depth):
            if kind is list:
                sequence(value, len(value), depth, "[", "]")
            elif kind is tuple:
                sequence(value, len(value), depth, "(", ",)" if len(value) == 1 else ")")
            elif kind is dict:
                pairs(value.items(), len(value), depth, "{", "}")
            elif kind is set:
                sequence(in_order(value, kind), len(value), depth, "{", "}") if value else put("set()")
            elif kind is frozenset:
                sequence(in_order(value, kind), len(value), depth, "frozenset({", "})") if value else put("frozenset()")
            elif issubclass(kind, BaseException):
                sequence(arguments(value), len(arguments(value)), depth, name_of(kind) + "(", ")")
            elif issubclass(kind, FUNCTIONS):
                word = "class" if issubclass(kind, type) else "module" if kind is types.ModuleType else "function"
                name = name_of(value) if word == "class" else getattr(value, "__name__", "?")
                put(f"<{word} {name}>")
            elif kind is collections.deque:
                sequence(value, len(value), depth, "deque([", "])")
            elif any((module, name_of(kind)) in SAFE_REPR and vars(sys.modules[module]).get(name_of(kind)) is kind
                     for module in ("fractions", "decimal", "datetime") if module in sys.modules):  # fmt: skip
                put(repr(value))
            else:
                subclass(value, kind, depth)

        def subclass(value, kind, depth):
            name, ancestors = name_of(kind), mro_of(kind)
            if tuple in ancestors:
                names = names_of(kind).get("_fields")
                if type(names) is tuple and len(names) == tuple.__len__(value):
                    fields(name, zip(map(str, names), tuple.__iter__(value)), depth)
                else:
                    sequence(tuple.__iter__(value), tuple.__len__(value), depth, name + "((", "))")
            elif dict in ancestors:
                pairs(dict.items(value), dict.__len__(value), depth, name + "({", "})")
            elif list in ancestors:
                sequence(list.__iter__(value), list.__len__(value), depth, name + "([", "])")
            elif set in ancestors or frozenset in ancestors:
                items = in_order(value, kind)
                sequence(items, len(items), depth, name + "({", "})")
            elif int in ancestors or float in ancestors or str in ancestors:
                base = int if int in ancestors else float if float in ancestors else str
                member = names_of_instance(value).get("_name_")
                put(f"{name}.{member}" if type(member) is str else f"{name}({base.__repr__(value)[:room]})")
            elif names_of(kind).get("__module__") == "candidate":
                state = names_of_instance(value)
                if type(state.get("_name_")) is str and "_value_" in state:
                    put(f"{name}.{state['_name_']}")
                else:
                    slots = [
                        (slot, member.__get__(value))
                        for ancestor in ancestors
                        for slot, member in names_of(ancestor).items()
                        if type(member) is types.MemberDescriptorType and has(member, value)
                    ]
                    fields(name, [*slots, *state.items()], depth)
            else:
                put(f"<{name}>")

        try:
            walk(value, 0)
        except Full:
            pass
        except (MemoryError, RecursionError):
            raise
        except Exception:
            return f"<unrepresentable: {name_of(type(value))}>"
        text = "".join(parts)
        return text if len(text) <= max_chars else text[: max(max_chars - 3, 0)] + "..."

    render.in_full = in_full
    return render


def has(member, value):
    try:
        member.__get__(value)
    except AttributeError:
        return False
    return True


def names_of_instance(value):
    try:
        state = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return state if type(state) is dict else {}
