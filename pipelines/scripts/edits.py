"""Functions for `kind = "python"`: a parameter is a column that is read, a field of the result a column that is added."""

import difflib
from typing import NamedTuple


class Edit(NamedTuple):
    changed_lines: int
    is_copy: bool


def edit(buggy: str, fix: str) -> Edit:
    """How far a fix is from the program that it repairs."""
    lines = difflib.ndiff(buggy.splitlines(), fix.splitlines())
    return Edit(sum(line.startswith("+ ") for line in lines), fix == buggy)
