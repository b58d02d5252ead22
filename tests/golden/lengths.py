from typing import Iterator, NamedTuple


class Length(NamedTuple):
    length: int
    share: float
    words: list[str]


def lengths(buggy: str) -> Iterator[Length]:
    for line in buggy.splitlines()[:2]:
        yield Length(len(line), len(line) / 3, line.split())
