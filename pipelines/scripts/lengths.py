"""Measures each program, in the unit that the pipeline names. Row-wise: a row of output for each row of input."""

import os
import sys

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    sys.exit("this example needs pyarrow: pip install pyarrow")


def main():
    programs = pq.read_table(os.environ["TRACETUNE_IN_ROWS"])["reference"].to_pylist()
    unit = os.environ["UNIT"]
    measure = {"lines": lambda text: text.count("\n"), "characters": len}[unit]
    lengths = [measure(program) for program in programs]
    pq.write_table(pa.table({"length": pa.array(lengths, pa.int64())}), os.environ["TRACETUNE_OUT"])
    print(f"{len(lengths)} programs, {sum(lengths) / len(lengths):.1f} {unit} on average")


main()
