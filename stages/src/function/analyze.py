"""Reads a Python function without running it: its signature, and the code that its results depend on.

Prints one JSON object: the answer, or {"error": {"message", "help"}}. Nothing of the project is imported here.

The code that counts is found by names. Of a module that is loaded, everything that runs when it is imported counts, and
of its functions, classes and constants those that code which counts refers to. Where names do not say enough (`eval`,
`globals`, `importlib`), whole modules count, or all of the project.
"""

import ast
import difflib
import hashlib
import json
import os
import re
import sys
from importlib.machinery import PathFinder

SCALARS = {"int": "int64", "float": "float64", "str": "string", "bool": "bool"}
LISTS = {"list", "List", "Sequence", "tuple", "Tuple", "Collection", "set", "Set", "frozenset"}
STREAMS = {"Iterator", "Iterable", "Generator"}
TABLES = {"DataFrame", "LazyFrame", "Table"}
# Code that reaches others by more than names.
REFLECTION = {"eval", "exec", "globals", "vars", "locals", "compile", "__dict__", "__globals__", "__code__"}
IMPORTERS = {"importlib", "__import__", "import_module", "runpy", "pkgutil", "imp", "modules", "exec", "eval", "zipimport"}
# Code that may see what is not in a syntax tree.
SOURCE_READERS = {"inspect", "getsource", "linecache", "tokenize", "__doc__", "getdoc", "docopt", "_getframe", "f_lineno"}
PLAIN_BASES = {"object", "NamedTuple", "TypedDict", "Exception", "ValueError", "RuntimeError", "Enum", "IntEnum", "StrEnum",
               "Protocol", "ABC", "TypeError", "KeyError"}
SAFE = (ast.Constant, ast.Name, ast.Attribute, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.BinOp, ast.UnaryOp, ast.BoolOp,
        ast.operator, ast.unaryop, ast.boolop, ast.expr_context, ast.JoinedStr, ast.FormattedValue, ast.Starred, ast.Lambda,
        ast.arguments, ast.arg)
WORD = re.compile(r"[A-Za-z_]\w*")
SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "dist-packages"}


class Wrong(Exception):
    """What is wrong with the function, in the user's words."""

    of_setup = False

    def __init__(self, message, help=None):
        super().__init__(message)
        self.help = help


class Module:
    """A module of the project as its syntax tree says it is."""

    def __init__(self, name, path, shown):
        self.name, self.path, self.shown = name, path, shown
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            source = file.read()
        self.stat = [found.st_ino, found.st_size, found.st_mtime_ns]
        self.digest = hashlib.sha256(source).hexdigest()
        try:
            self.tree = ast.parse(source, path)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            raise Wrong(f"{shown}{f':{line}' if line else ''}: {getattr(error, 'msg', error)}") from None
        self.is_package = os.path.basename(path) == "__init__.py"
        self.bindings = {}      # a name's statements, by their places
        self.at_import = []     # places of statements that do something when the module is imported
        self.imports = {}       # a name's meanings: (module, attribute or None)
        self.stars = []         # modules whose names are all taken over
        self.words = {word for node in ast.walk(self.tree) for word in words(node)}
        for place, statement in enumerate(self.tree.body):
            self.enter(place, statement)
        for node in ast.walk(self.tree):
            for local, target in imported(node, self.package()):
                if local == "*":
                    self.stars.append(target[0])
                else:
                    self.imports.setdefault(local, []).append(target)

    def package(self):
        return self.name if self.is_package else self.name.rpartition(".")[0]

    def enter(self, place, statement):
        names, acts = bound(statement)
        for name in names:
            self.bindings.setdefault(name, []).append(place)
        if acts and not is_main(statement) and not is_text(statement):
            self.at_import.append(place)


def words(node):
    """The names that a node uses, whatever for."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.alias):
        yield from node.name.split(".")
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from node.module.split(".")


def imported(node, package):
    """What an import binds: (local name, (module, attribute))."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                yield alias.asname, (alias.name, None)
            else:
                yield alias.name.split(".")[0], (alias.name.split(".")[0], None)
    elif isinstance(node, ast.ImportFrom):
        module = absolute(node, package)
        for alias in node.names:
            yield alias.asname or alias.name, (module, alias.name)


def absolute(node, package):
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    base = parts[: len(parts) - (node.level - 1)]
    return ".".join(base + ([node.module] if node.module else []))


def bound(statement):
    """The names that a statement of a module binds, and whether it does more than that when the module is imported."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        defaults = [*statement.args.defaults, *filter(None, statement.args.kw_defaults)]
        return [statement.name], bool(statement.decorator_list) or not all(map(is_safe, defaults))
    if isinstance(statement, ast.ClassDef):
        bases = all(isinstance(base, ast.Name) and base.id in PLAIN_BASES for base in statement.bases)
        dataclass = all(last_name(decorator) == "dataclass" for decorator in statement.decorator_list)
        body = all(is_text(inner) or isinstance(inner, ast.Pass) or not bound(inner)[1] for inner in statement.body)
        return [statement.name], not (bases and dataclass and body) or bool(statement.keywords)
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [], False
    if isinstance(statement, ast.Assign):
        plain = all(isinstance(target, ast.Name) for target in statement.targets)
        names = [node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        return names, not plain or not is_safe(statement.value)
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id], statement.value is not None and not is_safe(statement.value)
    names = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names += [node.name for node in ast.walk(statement) if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))]
    return names, not isinstance(statement, ast.Pass)


def is_safe(value):
    """Whether computing a value does nothing else."""
    return all(isinstance(node, SAFE) for node in ast.walk(value))


def is_text(statement):
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def is_main(statement):
    return (isinstance(statement, ast.If) and not statement.orelse and isinstance(statement.test, ast.Compare)
            and isinstance(statement.test.left, ast.Name) and statement.test.left.id == "__name__"
            and len(statement.test.comparators) == 1 and isinstance(statement.test.comparators[0], ast.Constant)
            and statement.test.comparators[0].value == "__main__" and isinstance(statement.test.ops[0], ast.Eq))


def last_name(node):
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


class Project:
    """The modules that count, and what of them."""

    def __init__(self, root, path):
        self.root, self.path = root, path
        self.modules, self.outside = {}, set()
        self.wanted = set()     # (module, place)
        self.todo = []
        self.whole, self.everything, self.raw = set(), False, False
        self.called, self.escaped = set(), set()
        self.stdlib = {os.path.realpath(os.path.dirname(os.__file__))}

    def find(self, name):
        """A module of the project; `None` if it is none, or none of Python source."""
        if name in self.modules:
            return self.modules[name]
        spec, path = None, self.path
        parts = name.split(".")
        for depth in range(len(parts)):
            try:
                spec = self.spec(".".join(parts[: depth + 1]), path)
            except (ImportError, ValueError, AttributeError):
                spec = None
            if spec is None:
                break
            path = spec.submodule_search_locations
            if path is None and depth + 1 < len(parts):
                spec = None
                break
        origin = spec.origin if spec is not None else None
        if spec is not None and origin and origin.endswith(".py") and self.is_ours(origin):
            shown = os.path.relpath(origin, self.root) if origin.startswith(self.root + os.sep) else origin
            self.modules[name] = Module(name, origin, shown)
        else:
            self.modules[name] = None
            namespace = spec is not None and origin is None and spec.submodule_search_locations is not None
            if not (namespace and any(self.is_ours(os.path.join(folder, "x")) for folder in spec.submodule_search_locations)):
                self.outside.add(parts[0])
        return self.modules[name]

    def spec(self, name, path):
        if path is not self.path:
            return PathFinder.find_spec(name, path)
        for finder in sys.meta_path:
            found = PathFinder.find_spec(name, path) if finder is PathFinder else finder.find_spec(name, None)
            if found is not None:
                return found
        return None

    def is_ours(self, path):
        folders = set(path.split(os.sep))
        if folders & {"site-packages", "dist-packages"}:
            return False
        real = os.path.realpath(path)
        return not any(real.startswith(folder + os.sep) for folder in self.stdlib)

    def load(self, name):
        """A module is imported, and its packages before it: what they do at import counts."""
        parts = name.split(".")
        for depth in range(len(parts)):
            module = self.find(".".join(parts[: depth + 1]))
            if module is not None:
                self.todo.append(("load", module.name, None))
        return self.find(name)

    def want(self, module, name, seen=()):
        """A name of a module counts."""
        if module is None or (module.name, name) in seen:
            return
        seen = (*seen, (module.name, name))
        known = name in module.bindings or name in module.imports
        for place in module.bindings.get(name, []):
            self.todo.append(("place", module.name, place))
        for target, attribute in module.imports.get(name, []):
            found = self.load(target)
            if attribute is None:
                continue
            if self.load(f"{target}.{attribute}") is None:
                self.want(found, attribute, seen)
        if known:
            return
        for star in module.stars:
            self.want(self.load(star), name, seen)
        submodule = self.find(f"{module.name}.{name}") if module.is_package else None
        if submodule is not None:
            self.load(submodule.name)
            self.all_of(submodule)
        elif "__getattr__" in module.bindings:
            self.all_of(module)

    def all_of(self, module):
        if module.name not in self.whole:
            self.whole.add(module.name)
            for place in range(len(module.tree.body)):
                self.todo.append(("place", module.name, place))

    def close(self):
        done = set()
        while self.todo:
            step = self.todo.pop()
            if step in done:
                continue
            done.add(step)
            what, name, place = step
            module = self.modules[name]
            if what == "load":
                for at in module.at_import:
                    self.todo.append(("place", name, at))
                for statement in module.tree.body:
                    self.follow_imports(module, statement)
            else:
                self.wanted.add((name, place))
                self.follow(module, module.tree.body[place])

    def follow_imports(self, module, statement):
        """Imports at the top of a module run when it is imported, also within `if` and `try`."""
        stack = [statement]
        while stack:
            node = stack.pop()
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self.follow_import(module, node)
            elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                stack.extend(ast.iter_child_nodes(node))

    def follow_import(self, module, node):
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.load(alias.name)
        else:
            target = absolute(node, module.package())
            self.load(target)
            for alias in node.names:
                if alias.name != "*" and self.find(target) is not None or self.namespace(target):
                    self.load(f"{target}.{alias.name}")

    def namespace(self, name):
        return self.modules.get(name) is None and name.split(".")[0] not in self.outside

    def follow(self, module, statement):
        """All that a statement refers to counts."""
        parents = {}
        for node in ast.walk(statement):
            for child in ast.iter_child_nodes(node):
                parents[child] = node
        used = set()
        for node in ast.walk(statement):
            used.update(words(node))
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self.follow_import(module, node)
            elif isinstance(node, ast.Name):
                self.refer(module, node, parents)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 200:
                for word in WORD.findall(node.value):
                    if word in module.bindings:
                        self.escaped.add(word)
                        self.want(module, word)
        if used & REFLECTION:
            self.all_of(module)
        if used & IMPORTERS:
            self.everything = True
        if used & SOURCE_READERS:
            self.raw = True

    def refer(self, module, node, parents):
        name, parent = node.id, parents.get(node)
        if isinstance(parent, ast.Call) and parent.func is node:
            self.called.add(name)
        else:
            self.escaped.add(name)
        self.want(module, name)
        # `helpers.chars`: of a module one name counts; a module that is handed around counts as a whole.
        for target, attribute in module.imports.get(name, []):
            found = self.load(target if attribute is None else f"{target}.{attribute}")
            at, above = node, parent
            if found is None and not self.namespace(target):
                continue
            full = found.name if found is not None else target
            while isinstance(above, ast.Attribute):
                at, above, attr = above, parents.get(above), above.attr
                deeper = None if attr in (found.bindings if found else {}) else self.find(f"{full}.{attr}")
                if deeper is None:
                    self.want(found, attr)
                    last = parents.get(at)
                    if not (isinstance(last, ast.Call) and last.func is at):
                        self.escaped.add(attr)
                    break
                self.load(deeper.name)
                found, full = deeper, deeper.name
            else:
                if found is not None:
                    self.all_of(found)

    def take_everything(self):
        """All Python files of the project, as which of them are imported can't be told."""
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED_FOLDERS
                                and not os.path.exists(os.path.join(folder, f, "pyvenv.cfg")))
            for file in sorted(files):
                path = os.path.join(folder, file)
                if file.endswith(".py") and not any(m and m.path == path for m in self.modules.values()):
                    shown = os.path.relpath(path, self.root)
                    try:
                        self.modules[f"file {shown}"] = Module(f"file {shown}", path, shown)
                    except Wrong:
                        continue
        for module in list(self.modules.values()):
            if module is not None:
                self.all_of(module)
        self.close()

    def tree_digest(self, entries):
        """Over the syntax trees of all that counts, without what can't be seen in results."""
        digest = hashlib.sha256()
        before = -1
        while before != len(self.escaped):      # under whatever name it was imported
            before = len(self.escaped)
            for module in filter(None, self.modules.values()):
                for local in self.escaped & module.imports.keys():
                    self.escaped |= {attribute for _, attribute in module.imports[local] if attribute}
        for name in sorted({name for name, _ in self.wanted} | {n for n, m in self.modules.items() if m is not None}):
            module = self.modules[name]
            digest.update(f"module {name}\0".encode())
            if self.raw:
                digest.update(module.digest.encode())
                continue
            imports = [ast.dump(s) for s in module.tree.body if isinstance(s, (ast.Import, ast.ImportFrom))]
            digest.update("\n".join(imports).encode())
            for place in sorted(place for of, place in self.wanted if of == name):
                statement = module.tree.body[place]
                if not is_text(statement):
                    digest.update(ast.dump(self.plain(statement)).encode() + b"\0")
        digest.update(repr(entries).encode())
        return digest.hexdigest()

    def plain(self, statement):
        """Without the docstrings of functions that are only called; others may be read by who gets them."""
        only_called = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and not statement.decorator_list
        if only_called and statement.name not in self.escaped:
            statement.body = [s for n, s in enumerate(statement.body) if n or not is_text(s)] or [ast.Pass()]
        return statement


def signature(module, function, project):
    """The parameters of a function and what it returns."""
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    without_default = len(plain) - len(arguments.defaults)
    parameters = [dict(name=a.arg, kind="column", default=n >= without_default, type=annotation(module, a.annotation), line=a.lineno)
                  for n, a in enumerate(plain)]
    parameters += [dict(name=a.arg, kind="keyword", default=d is not None, type=annotation(module, a.annotation), line=a.lineno)
                   for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    yields = any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own_nodes(function))
    adds, many, why = [], yields, None
    try:
        adds, many = returned(module, function, yields, project)
    except Wrong as error:
        why = dict(message=str(error), help=error.help)
    return dict(parameters=parameters, any_keyword=arguments.kwarg is not None, any_position=arguments.vararg is not None,
                is_async=isinstance(function, ast.AsyncFunctionDef), adds=adds, many=many, no_adds=why, line=function.lineno,
                is_table=any(p["type"].rpartition(".")[2] in TABLES for p in [*parameters[: len(plain)], dict(type=annotation(module, function.returns))]))


def own_nodes(function):
    stack = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(node))


def unquoted(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return node
    return node


def last_name_of(node):
    node = unquoted(node) if node is not None else None
    if isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def annotation(module, node):
    """The full name of a type, e.g. `pandas.DataFrame`; empty if there is none."""
    if node is None:
        return ""
    node = not_none(node)
    node = node.value if isinstance(node, ast.Subscript) else node
    if not isinstance(node, (ast.Name, ast.Attribute)):
        return ""
    first, _, rest = ast.unparse(node).partition(".")
    for target, attribute in module.imports.get(first, [])[:1]:
        first = target if attribute is None else f"{target}.{attribute}"
    return f"{first}.{rest}" if rest else first


def not_none(node):
    """`T` of `T | None` and of `Optional[T]`."""
    node = unquoted(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(other, ast.Constant) and other.value is None:
                return not_none(one)
    if isinstance(node, ast.Subscript):
        name, inner = last_name_of(node), node.slice
        if name == "Optional":
            return not_none(inner)
        if name == "Union" and isinstance(inner, ast.Tuple):
            rest = [e for e in inner.elts if not (isinstance(e, ast.Constant) and e.value is None)]
            if len(rest) == 1:
                return not_none(rest[0])
        if name == "Annotated" and isinstance(inner, ast.Tuple):
            return not_none(inner.elts[0])
    return node


def returned(module, function, yields, project):
    """The columns that a function adds, and whether it returns any number of rows for each."""
    if function.returns is None:
        raise Wrong(f"`{function.name}` has no annotation that says its columns",
                    "annotate it (`-> int`), or write `adds = { length = \"int64\" }`")
    node, many = not_none(function.returns), False
    name = last_name_of(node)
    if name in STREAMS and isinstance(node, ast.Subscript):
        inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
        node, many = not_none(inner), True
    elif yields:
        raise Wrong(f"`{function.name}` yields, and its annotation does not say what", "e.g. `-> Iterator[int]`, or set `adds`")
    elif name in LISTS and isinstance(node, ast.Subscript):
        inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
        fields = fields_of(module, not_none(inner), project)
        if fields is not None:
            return fields, True
    fields = fields_of(module, node, project)
    if fields is not None:
        return fields, many
    return [[function.name, column_type(module, node)]], many


def column_type(module, node):
    node = not_none(node)
    name = last_name_of(node)
    if name in SCALARS and not isinstance(node, ast.Subscript):
        return SCALARS[name]
    if name == "Literal" and isinstance(node, ast.Subscript):
        values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        types = {type(value.value).__name__ for value in values if isinstance(value, ast.Constant)}
        if len(types) == 1 and types <= set(SCALARS):
            return SCALARS[types.pop()]
    if name in LISTS and isinstance(node, ast.Subscript):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        inner = [e for e in inner if not (isinstance(e, ast.Constant) and e.value is Ellipsis)]
        if len(inner) == 1:
            return f"list of {column_type(module, inner[0])}"
    text = ast.unparse(node)
    raise Wrong(f"{module.shown}:{getattr(node, 'lineno', 1)}: `{text}` is no type of a column",
                "a column is `int`, `float`, `str`, `bool` or a `list[…]` of these; several columns are a dataclass, a "
                "NamedTuple or a TypedDict; or set `adds`")


def fields_of(module, node, project):
    """The columns of a class that describes a row; `None` if it is no such class."""
    name = last_name_of(node)
    module, definition = project.definition(module, name) if isinstance(node, ast.Name) else (module, None)
    if not isinstance(definition, ast.ClassDef):
        return None
    bases = {last_name(base) for base in definition.bases}
    is_row = bases & {"NamedTuple", "TypedDict", "BaseModel"} or any(last_name(d) == "dataclass" for d in definition.decorator_list)
    fields = [s for s in definition.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    if not is_row or not fields:
        return None
    return [[field.target.id, column_type(module, field.annotation)] for field in fields]


def definition(self, module, name, depth=0):
    """Where a name's class or function is defined."""
    for place in reversed(module.bindings.get(name, [])):
        statement = module.tree.body[place]
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name == name:
            return module, statement
    for target, attribute in module.imports.get(name, []):
        found = self.find(target)
        if found is not None and attribute is not None and depth < 10:
            return definition(self, found, attribute, depth + 1)
    return module, None


Project.definition = definition


def located(reference, root):
    """A reference's module, its name there, and the folders where modules are looked for."""
    where, colon, name = reference.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise Wrong(f"`{reference}` is no function", "write `file.py:function` or `package.module:function`")
    if not where.endswith(".py"):
        return where, name, [root]
    path = os.path.normpath(os.path.join(root, where))
    if not os.path.isfile(path):
        folder = os.path.dirname(path)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        near = difflib.get_close_matches(os.path.basename(path), [n for n in names if n.endswith(".py")], 1)
        near = near and os.path.join(os.path.dirname(where), near[0])
        raise Wrong(f"there is no file `{where}` in the project's root", f"did you mean `{near}:{name}`?" if near else None)
    folder, module = os.path.dirname(path), os.path.basename(path)[:-3]
    if not module.isidentifier():
        raise Wrong(f"`{where}` can't be imported: `{module}` is no name of a module", "rename the file, e.g. with `_` for `-`")
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        module = f"{os.path.basename(folder)}.{module}"
        folder = os.path.dirname(folder)
    return module, name, list(dict.fromkeys([folder, root]))


def versions(names):
    """Names and versions of the distributions that modules come from, and of those that these need."""
    if not names:
        return {}
    import importlib.metadata as metadata

    found, todo = {}, []
    belonging = metadata.packages_distributions()
    for name in names:
        todo.extend(belonging.get(name, []))
        if name not in belonging:
            found[f"module {name}"] = outside_digest(name)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if f"package {name}" in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[f"package {name}"] = distribution.version
        todo.extend(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in distribution.requires or [])
    return found


def outside_digest(name):
    """Of a module that no distribution has: its bytes, if it is there."""
    spec = PathFinder.find_spec(name)
    if spec is None:
        return "not installed"
    files = [spec.origin] if spec.origin and os.path.isfile(spec.origin) else []
    for folder in spec.submodule_search_locations or []:
        for at, _, names in sorted(os.walk(folder)):
            files += [os.path.join(at, n) for n in sorted(names) if not n.endswith(".pyc")]
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        with open(file, "rb") as opened:
            digest.update(opened.read())
    return digest.hexdigest()


class NoFunction(Wrong):
    def __init__(self, reference, module, of_setup=False):
        where, _, name = reference.rpartition(":")
        functions = [n for n, places in (module.bindings if module else {}).items()
                     if any(is_function(module.tree.body[p]) for p in places)]
        near = difflib.get_close_matches(name, functions, 1)
        known = f"its functions are {', '.join(functions)}" if functions else None
        super().__init__(f"`{where}` has no function `{name}`", f"did you mean `{near[0]}`?" if near else known)
        self.of_setup = of_setup


def is_function(node):
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def analyze(function, setup, root):
    root = os.path.realpath(root)
    module_name, name, path = located(function, root)
    sys.path[:] = path + [p for p in sys.path if p and p not in path]
    project = Project(root, list(sys.path))
    module = project.load(module_name)
    if module is None:
        raise Wrong(f"there is no module `{module_name}` of Python source in the project",
                    "write `file.py:function`, or `package.module:function` with the package in the project's root")
    entries, definition = [(module_name, name)], None
    where, definition = project.definition(module, name)
    if not is_function(definition):
        raise NoFunction(function, module)
    answer = signature(where, definition, project)
    project.want(module, name)
    if setup:
        setup_module, setup_name, more = located(setup, root)
        path = list(dict.fromkeys([*path, *more]))
        project.path[:0] = [p for p in more if p not in project.path]
        loaded = project.load(setup_module)
        if loaded is None or not is_function(project.definition(loaded, setup_name)[1]):
            raise NoFunction(setup, loaded, of_setup=True)
        project.want(loaded, setup_name)
        entries.append((setup_module, setup_name))
    project.close()
    if project.everything:
        project.take_everything()
    files = {m.path: dict(sha256=m.digest, stat=m.stat) for m in project.modules.values() if m is not None}
    outside = {n for n in project.outside if n and n not in sys.stdlib_module_names}
    answer.update(set_up=entries[1] if setup else None, module=module_name, name=name, path=path, search=[p for p in sys.path if p], tree=project.tree_digest(entries), files=files, versions=versions(sorted(outside)),
                  absent=sorted(project.outside))
    return answer


def main():
    request = json.loads(sys.argv[1])
    try:
        answer = analyze(request["function"], request["setup"], request["root"])
    except Wrong as error:
        answer = dict(error=dict(message=str(error), help=error.help, of_setup=error.of_setup))
    except RecursionError:
        answer = dict(error=dict(message="its code is nested too deeply to be read", help=None))
    json.dump(answer, sys.stdout)


if len(sys.argv) > 1:
    main()
