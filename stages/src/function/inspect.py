"""Says of a function what its stage needs to know, without running a line of it: its signature, and the syntax trees of all
project code that it can reach. Reads `ROOT PATH-OR-MODULE NAME` from its arguments, writes one JSON object."""
import ast
import importlib.metadata
import json
import os
import sys

ROOT, WHERE, NAME = sys.argv[1:4]
# What can reach any name without naming it.
DYNAMIC = {"globals", "eval", "exec", "__import__", "importlib", "locals", "vars", "getattr", "setattr", "compile"}


class Problem(Exception):
    pass


class Module:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            source = file.read()
        try:
            self.tree = ast.parse(source, path)
        except SyntaxError as error:
            raise Problem(f"{shown(path)}:{error.lineno}: {error.msg}") from None
        self.keep_docs = b"__doc__" in source
        # Statement numbers that bind each name; those that bind none run in any case.
        self.binds, self.imports, self.always = {}, {}, []
        for number, node in enumerate(self.tree.body):
            self.enter(number, node)

    def enter(self, number, node):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.binds.setdefault(node.name, []).append(number)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)]
            if not names or any(not isinstance(target, (ast.Name, ast.Tuple, ast.List)) for target in targets):
                self.always.append(number)
            for name in names:
                self.binds.setdefault(name, []).append(number)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                self.imports.setdefault((alias.asname or alias.name.split(".")[0]), []).append((node, alias))
        elif isinstance(node, ast.If) and is_main(node.test):
            pass
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            self.always.append(number)


def is_main(test):
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def shown(path):
    return os.path.relpath(path, ROOT)


def module_file(name, folders):
    for folder in folders:
        base = os.path.join(folder, *name.split("."))
        for path in (base + ".py", os.path.join(base, "__init__.py")):
            if os.path.isfile(path):
                return os.path.realpath(path)
    return None


class Reach:
    """What a function can reach, statement by statement."""

    def __init__(self, folders):
        self.folders, self.modules, self.seen, self.packages = folders, {}, set(), set()

    def module(self, path):
        if path not in self.modules:
            self.modules[path] = module = Module(path)
            for number in module.always:
                self.statement(module, number)
            # Importing a package runs what its folders' `__init__.py` say.
            above = os.path.join(os.path.dirname(path), "__init__.py")
            if path != above and os.path.isfile(above):
                self.whole(os.path.realpath(above))
        return self.modules[path]

    def whole(self, path):
        if (path, None) in self.seen:
            return
        self.seen.add((path, None))
        module = self.module(path)
        for number in range(len(module.tree.body)):
            self.statement(module, number)
        for name in list(module.imports):
            self.imported(module, name)

    def statement(self, module, number):
        if (module.path, number) in self.seen:
            return
        self.seen.add((module.path, number))
        self.names(module, module.tree.body[number])

    def names(self, module, node):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                self.name(module, inner.id)
            elif isinstance(inner, (ast.Import, ast.ImportFrom)):
                for alias in inner.names:
                    self.load(module, inner, alias)
            elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value.isidentifier():
                # An annotation in quotes.
                self.name(module, inner.value)

    def name(self, module, name):
        if name in module.binds:
            for number in module.binds[name]:
                self.statement(module, number)
        if name in module.imports:
            self.imported(module, name)
        elif name in DYNAMIC and name not in module.binds:
            self.whole(module.path)
        elif name not in module.binds:
            for stars in module.imports.get("*", []):
                self.load(module, *stars)

    def imported(self, module, name):
        for node, alias in module.imports[name]:
            self.load(module, node, alias)

    def load(self, module, node, alias):
        if isinstance(node, ast.Import):
            return self.load_module(alias.name)
        base = node.module or ""
        if node.level:
            folder = os.path.dirname(module.path)
            for _ in range(node.level - 1):
                folder = os.path.dirname(folder)
            found = module_file(base, [folder]) if base else os.path.join(folder, "__init__.py")
            inner = module_file(f"{base}.{alias.name}".strip("."), [folder])
        else:
            found = module_file(base, self.folders)
            inner = module_file(f"{base}.{alias.name}", self.folders)
        if inner:
            return self.whole(inner)
        if not found or not os.path.isfile(found):
            return self.packages.add(base.split(".")[0]) if not node.level else None
        target = self.module(os.path.realpath(found))
        if alias.name == "*":
            self.whole(target.path)
        else:
            self.name(target, alias.name)

    def load_module(self, name):
        parts = name.split(".")
        found = [module_file(".".join(parts[: count + 1]), self.folders) for count in range(len(parts))]
        if not found[0]:
            return self.packages.add(parts[0])
        for path in found:
            if path:
                self.whole(path)


def canonical(module, node):
    if not module.keep_docs:
        for inner in ast.walk(node):
            body = getattr(inner, "body", None)
            if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(inner, False) is not None:
                inner.body = body[1:] or [ast.Pass()]
    return ast.dump(node)


TYPES = {"int": "int64", "str": "string", "float": "float64", "bool": "bool"}


def column_type(node, module):
    """The column type of an annotation."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    if isinstance(node, ast.Name) and node.id in TYPES:
        return TYPES[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = [side for side in (node.left, node.right) if not (isinstance(side, ast.Constant) and side.value is None)]
        if len(sides) == 1:
            return column_type(sides[0], module)
    if isinstance(node, ast.Subscript):
        name = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if name == "Optional":
            return column_type(node.slice, module)
        if name in ("list", "List"):
            inner = column_type(node.slice, module)
            return inner and f"list of {inner}"
    return None


def returned(node, module, name):
    """The columns that an annotation of the result says, whether there may be several rows, and whether it is one value."""
    if node is None or (isinstance(node, ast.Constant) and node.value is None):
        return None
    if isinstance(node, ast.Subscript):
        base = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
        fields = class_fields(inner, module)
        if base in ("Iterator", "Iterable", "Generator") or (base in ("list", "List") and fields):
            rows = returned(inner, module, name)
            return rows and {**rows, "many": True}
    fields = class_fields(node, module)
    if fields:
        return {"columns": fields, "many": False, "single": False}
    single = column_type(node, module)
    return {"columns": {name: single}, "many": False, "single": True} if single else None


def class_fields(node, module):
    """The fields of a dataclass, NamedTuple or TypedDict of the same module."""
    name = getattr(node, "id", None)
    for number in module.binds.get(name, []):
        definition = module.tree.body[number]
        if isinstance(definition, ast.ClassDef):
            fields = {}
            for line in definition.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    kind = column_type(line.annotation, module)
                    if kind is None:
                        raise Problem(f"{shown(module.path)}:{line.lineno}: `{ast.unparse(line.annotation)}` is no type of a column")
                    fields[line.target.id] = kind
            return fields
    return None


def main():
    if WHERE.endswith(".py"):
        path = os.path.realpath(os.path.join(ROOT, WHERE))
        if not os.path.isfile(path):
            raise Problem(f"there is no file `{WHERE}` in the project's root")
    else:
        path = module_file(WHERE, [ROOT])
        if path is None:
            raise Problem(f"there is no module `{WHERE}` in the project's root")
    folders = [os.path.dirname(path), ROOT] if WHERE.endswith(".py") else [ROOT]
    reach = Reach(folders)
    module = reach.module(path)
    functions = [n.name for n in module.tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    if NAME not in functions:
        return {"functions": functions}
    definition = module.tree.body[module.binds[NAME][-1]]
    if isinstance(definition, ast.AsyncFunctionDef):
        raise Problem(f"{shown(path)}:{definition.lineno}: `{NAME}` is asynchronous, which can't be called row by row")
    arguments = definition.args
    if arguments.vararg or arguments.kwarg:
        raise Problem(f"{shown(path)}:{definition.lineno}: `{NAME}` takes any number of arguments: name the columns that it reads")
    reach.name(module, NAME)
    if len(sys.argv) > 4:
        if sys.argv[4] not in functions:
            return {"functions": functions, "of": sys.argv[4]}
        reach.name(module, sys.argv[4])
    lines = sorted((p, n) for p, n in reach.seen if n is not None)
    code = [f"{shown(p)} {canonical(reach.modules[p], reach.modules[p].tree.body[n])}" for p, n in lines]
    code += sorted(
        f"{shown(p)} {name} {ast.dump(node)}"
        for p, m in reach.modules.items() for name, uses in m.imports.items() for node, _ in uses
    )
    positional = arguments.posonlyargs + arguments.args
    required = [a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults) if d is None]
    return {
        "line": definition.lineno,
        "reads": [argument.arg for argument in positional],
        "keywords": [argument.arg for argument in arguments.kwonlyargs],
        "required": required,
        "returns": returned(definition.returns, module, NAME),
        "code": code,
        "modules": sorted(reach.modules),
        "packages": {name: version for name in sorted(reach.packages) if (version := version_of(name))},
    }


def version_of(name):
    if name in sys.stdlib_module_names or not name:
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
    found = importlib.metadata.packages_distributions().get(name, [])
    return " ".join(f"{dist} {importlib.metadata.version(dist)}" for dist in sorted(set(found))) or "unknown"


try:
    answer = main()
except Problem as problem:
    answer = {"problem": str(problem)}
json.dump(answer, sys.stdout)
