"""For the tests: holds traces against what can be known without tracing. JSON lines in, complaints out.

The annotated program must have the program's syntax tree; step 0 must show the arguments of the call that the test
makes; what the call gave must be what the test expects, since the traced programs are correct.
"""

import ast
import json
import re
import sys


def complaints(row):
    if ast.dump(ast.parse(row["trace"])) != ast.dump(ast.parse(row["source"])):
        yield "another syntax tree"
    statement = ast.parse(row["test"]).body[0]
    test = statement.test if isinstance(statement, ast.Assert) else None
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return
    call, right = test.left, test.comparators[0]
    names = {node.name: node for node in ast.parse(row["source"]).body if isinstance(node, ast.FunctionDef)}
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in names or call.keywords:
        return
    try:
        given = [ast.literal_eval(argument) for argument in call.args]
        expected = ast.literal_eval(right)
    except ValueError:
        return
    signature = names[call.func.id]
    if row["steps"] and given and not signature.args.vararg:
        lines = row["trace"].split("\n")
        comment = re.search(r"  # \(0\) (.*?;)(?: \(\d+\) | \.\.\.;|$)", lines[signature.body[0].lineno - 2])
        comment = comment or re.search(r"  # \(0\) (.*?;)(?: \(\d+\) | \.\.\.;|$)", lines[signature.lineno - 1])
        if comment is None:
            yield "no step 0 at the function that the test calls"
        elif "..." not in comment[1]:
            compared.append(call)
            shown = "".join(f"{a.arg}={value!r}; " for a, value in zip(signature.args.args, given)).strip()
            if not any(isinstance(value, set) for value in given) and not comment[1].startswith(shown):
                yield f"shows {comment[1]}, the test gives {shown}"
    if "..." not in row["got"] and not isinstance(expected, float):
        try:
            got = ast.literal_eval(row["got"])
        except (ValueError, SyntaxError):
            return
        if got != expected:
            yield f"got {row['got']}, the test expects {expected!r}"


checked, compared = 0, []
for line in sys.stdin:
    row = json.loads(line)
    for complaint in complaints(row):
        print(row["test"], complaint)
    checked += 1
print("checked", checked, "rows,", len(compared), "calls")
