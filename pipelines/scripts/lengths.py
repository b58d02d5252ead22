"""Adds a column `length`: how long each buggy program is, in the unit that the pipeline names."""

import os
import sys

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    sys.exit("this example needs pyarrow: pip install pyarrow")


def main():
    table = pq.read_table(os.environ["TRACETUNE_IN_ROWS"])
    unit = os.environ["UNIT"]
    measure = {"lines": lambda text: text.count("\n"), "characters": len}[unit]
    lengths = [measure(program) for program in table["buggy"].to_pylist()]
    pq.write_table(table.append_column("length", pa.array(lengths, pa.int64())), os.environ["TRACETUNE_OUT"])
    print(f"{len(lengths)} programs, {sum(lengths) / max(1, len(lengths)):.1f} {unit} on average")


main()
