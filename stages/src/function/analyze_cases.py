"""Changes of a project that do and do not change what its function returns, and whether they change its key. Run with
`analyze.py` before it; prints the cases that are wrong."""

import shutil
import tempfile


def key(files, fn, setup):
    folder = tempfile.mkdtemp()
    before = list(sys.path)
    try:
        for path, text in files.items():
            path = os.path.join(folder, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        return analyze(fn, setup, folder)["tree"]
    finally:
        sys.path[:] = before
        shutil.rmtree(folder)


def case(name, files, edit, changes, fn="m.py:f", setup=None):
    path, old, new = edit
    assert old in files[path], name
    edited = {**files, path: files[path].replace(old, new)}
    if (key(files, fn, setup) != key(edited, fn, setup)) != changes:
        print(name)


F = 'def f(x: str) -> int:\n    return g(x)\n'
case("helper", {'m.py':'from h import g\n'+F,'h.py':'def g(x): return 1\ndef u(): return 2\n'},
     ('h.py','return 1','return 3'), True)
case("unused helper", {'m.py':'from h import g\n'+F,'h.py':'def g(x): return 1\ndef u(): return 2\n'},
     ('h.py','return 2','return 3'), False)
case("register decorator", {'m.py':'R={}\ndef reg(f):\n    R[f.__name__]=f\n    return f\n@reg\ndef a(x): return 1\ndef f(x: str) -> int:\n    return R["a"](x)\n'},
     ('m.py','return 1','return 2'), True)
case("registry in other module", {'m.py':'import plug\nfrom reg import R\ndef f(x: str) -> int:\n    return R["zz"](x)\n','reg.py':'R={}\ndef reg(f):\n    R[f.__name__]=f\n    return f\n','plug.py':'from reg import reg\n@reg\ndef zz(x): return 1\n'},
     ('plug.py','return 1','return 2'), True)
case("init_subclass", {'m.py':'K=[]\nclass B:\n    def __init_subclass__(c): K.append(c)\nclass C(B):\n    v=1\ndef f(x: str) -> int:\n    return K[0].v\n'},
     ('m.py','v=1','v=2'), True)
case("assign call side effect", {'m.py':'C={}\ndef conf(n): C["a"]=n\n_ = conf(1)\ndef f(x: str) -> int:\n    return C["a"]\n'},
     ('m.py','conf(1)','conf(2)'), True)
case("subscript assign", {'m.py':'C={}\nC["a"]=1\ndef f(x: str) -> int:\n    return C["a"]\n'},
     ('m.py','=1','=2'), True)
case("helper patches", {'m.py':'import h\nimport p\ndef f(x: str) -> int:\n    return h.v\n','h.py':'v=1\n','p.py':'import h\nh.v=2\n'},
     ('p.py','2','3'), True)
case("monkeypatch via setattr", {'m.py':'import h\nimport p\ndef f(x: str) -> int:\n    return h.v\n','h.py':'v=1\n','p.py':'import h\nsetattr(h,"v",2)\n'},
     ('p.py','2','3'), True)
case("attr chain", {'m.py':'import pkg.a.b\ndef f(x: str) -> int:\n    return pkg.a.b.g(x)\n','pkg/__init__.py':'','pkg/a/__init__.py':'','pkg/a/b.py':'def g(x): return 1\n'},
     ('pkg/a/b.py','1','2'), True)
case("namespace package", {'m.py':'import pkg.b\ndef f(x: str) -> int:\n    return pkg.b.g(x)\n','pkg/b.py':'def g(x): return 1\n'},
     ('pkg/b.py','1','2'), True)
case("namespace from", {'m.py':'from pkg import b\ndef f(x: str) -> int:\n    return b.g(x)\n','pkg/b.py':'def g(x): return 1\n'},
     ('pkg/b.py','1','2'), True)
case("namespace from deep", {'m.py':'from pkg.b import g\n'+F,'pkg/b.py':'def g(x): return 1\n'},
     ('pkg/b.py','1','2'), True)
case("relative", {'p/__init__.py':'','p/m.py':'from .h import g\nfrom . import k\n'+F,'p/h.py':'from . import k\ndef g(x): return k.z()\n','p/k.py':'def z(): return 1\n'},
     ('p/k.py','1','2'), True, fn='p/m.py:f')
case("dotted ref", {'p/__init__.py':'','p/m.py':'from .h import g\n'+F,'p/h.py':'def g(x): return 1\n'},
     ('p/h.py','1','2'), True, fn='p.m:f')
case("reexport", {'m.py':'from pkg import g\n'+F,'pkg/__init__.py':'from .x import g\n','pkg/x.py':'def g(x): return 1\n'},
     ('pkg/x.py','1','2'), True)
case("star", {'m.py':'from h import *\n'+F,'h.py':'def g(x): return 1\n'},
     ('h.py','1','2'), True)
case("star reexport", {'m.py':'from h import *\n'+F,'h.py':'from i import *\n','i.py':'def g(x): return 1\n'},
     ('i.py','1','2'), True)
case("alias", {'m.py':'from h import g as q\ndef f(x: str) -> int:\n    return q(x)\n','h.py':'def g(x): return 1\n'},
     ('h.py','1','2'), True)
case("import in function", {'m.py':'def f(x: str) -> int:\n    from h import g\n    return g(x)\n','h.py':'def g(x): return 1\n'},
     ('h.py','1','2'), True)
case("import as in function", {'m.py':'def f(x: str) -> int:\n    import h as q\n    return q.g(x)\n','h.py':'def g(x): return 1\n'},
     ('h.py','1','2'), True)
case("try import", {'m.py':'try:\n    from fast import g\nexcept ImportError:\n    from h import g\n'+F,'h.py':'def g(x): return 1\n'},
     ('h.py','1','2'), True)
case("conditional def", {'m.py':'import sys\nif sys.version_info>(3,):\n    def g(x): return 1\nelse:\n    def g(x): return 2\n'+F},
     ('m.py','return 1','return 3'), True)
case("getattr module", {'m.py':'import h\ndef f(x: str) -> int:\n    return getattr(h, x)()\n','h.py':'def g(): return 1\n'},
     ('h.py','1','2'), True)
case("globals", {'m.py':'def g(): return 1\ndef f(x: str) -> int:\n    return globals()[x]()\n'},
     ('m.py','1','2'), True)
case("importlib", {'m.py':'import importlib\ndef f(x: str) -> int:\n    return importlib.import_module(x).g()\n','sub/h.py':'def g(): return 1\n'},
     ('sub/h.py','1','2'), True)
case("sys.modules", {'m.py':'import sys, h\ndef f(x: str) -> int:\n    return sys.modules["h"].g()\n','h.py':'def g(): return 1\n'},
     ('h.py','1','2'), True)
case("class method", {'m.py':'from h import A\ndef f(x: str) -> int:\n    return A().g()\n','h.py':'class A:\n    def g(self): return 1\n'},
     ('h.py','1','2'), True)
case("base class", {'m.py':'from h import A\nclass B(A): pass\ndef f(x: str) -> int:\n    return B().g()\n','h.py':'class A:\n    def g(self): return 1\n'},
     ('h.py','1','2'), True)
case("default arg", {'m.py':'N=1\ndef f(x: str, *, n=N) -> int:\n    return n\n'},
     ('m.py','N=1','N=2'), True)
case("string forward ref", {'m.py':'class T:\n    v: int = 1\ndef f(x: str) -> "int":\n    return eval_it("T")\ndef eval_it(x): return 1\n'},
     ('m.py','= 1','= 2'), True)
case("docstring free", {'m.py':'def f(x: str) -> int:\n    "a"\n    return 1\n'},
     ('m.py','"a"','"b"'), False)
case("docstring of escaped", {'m.py':'import dsp\ndef t(x):\n    "a"\n    return 1\ndef f(x: str) -> int:\n    return dsp.tool(t)\n'},
     ('m.py','"a"','"b"'), True)
case("docstring escaped alias", {'m.py':'import dsp\nfrom h import t as u\ndef f(x: str) -> int:\n    return dsp.tool(u)\n','h.py':'def t(x):\n    "a"\n    return 1\n'},
     ('h.py','"a"','"b"'), True)
case("docstring escaped attr", {'m.py':'import dsp\nimport h\ndef f(x: str) -> int:\n    return dsp.tool(h.t)\n','h.py':'def t(x):\n    "a"\n    return 1\n'},
     ('h.py','"a"','"b"'), True)
case("docstring class sig", {'m.py':'import dspy\nclass Q(dspy.Signature):\n    "a"\n    x: int\ndef f(x: str) -> int:\n    return dspy.run(Q)\n'},
     ('m.py','"a"','"b"'), True)
case("doc attr", {'m.py':'def t(x):\n    "a"\n    return 1\ndef f(x: str) -> int:\n    return len(t.__doc__)\n'},
     ('m.py','"a"','"bb"'), True)
case("module doc", {'m.py':'"a"\ndef f(x: str) -> int:\n    return len(__doc__)\n'},
     ('m.py','"a"','"bb"'), True)
case("getsource comment", {'m.py':'import inspect\ndef f(x: str) -> int:\n    # a\n    return len(inspect.getsource(f))\n'},
     ('m.py','# a','# ab'), True)
case("comment", {'m.py':'# a\ndef f(x: str) -> int:\n    return 1 # a\n'},
     ('m.py','# a','# ab'), False)
case("format", {'m.py':'def f(x: str) -> int:\n    return g(1,2)\ndef g(a,b): return a\n'},
     ('m.py','1,2','1,\n        2'), False)
case("main block", {'m.py':'def f(x: str) -> int:\n    return 1\nif __name__ == "__main__":\n    print(1)\n'},
     ('m.py','print(1)','print(2)'), False)
case("setup", {'m.py':'def load(): return 1\ndef f(x: str, *, state) -> int:\n    return state\n'},
     ('m.py','return 1','return 2'), True, setup='m.py:load')
case("lambda const", {'m.py':'g = lambda x: 1\n'+F},
     ('m.py','x: 1','x: 2'), True)
case("global stmt mutate", {'m.py':'N=1\ndef up():\n    global N\n    N=5\nup()\ndef f(x: str) -> int:\n    return N\n'},
     ('m.py','N=5','N=6'), True)
case("for loop binding", {'m.py':'T={}\nfor k in "ab":\n    T[k]=1\ndef f(x: str) -> int:\n    return T[x]\n'},
     ('m.py','=1','=2'), True)
case("with binding", {'m.py':'import contextlib\nwith contextlib.suppress(Exception):\n    N=1\ndef f(x: str) -> int:\n    return N\n'},
     ('m.py','N=1','N=2'), True)
case("match/walrus", {'m.py':'print(N := 1)\ndef f(x: str) -> int:\n    return N\n'},
     ('m.py','1','2'), True)
case("del", {'m.py':'N=1\nM=2\ndel M\ndef f(x: str) -> int:\n    return N\n'},
     ('m.py','N=1','N=3'), True)
case("tuple assign", {'m.py':'A, B = 1, 2\ndef f(x: str) -> int:\n    return B\n'},
     ('m.py','2','3'), True)
case("pkg init effect", {'m.py':'from pkg.h import g\n'+F,'pkg/__init__.py':'import pkg.h\npkg.h.K=1\n','pkg/h.py':'K=0\ndef g(x): return K\n'},
     ('pkg/__init__.py','K=1','K=2'), True)
case("module alias assigned", {'m.py':'import h\nq = h\ndef f(x: str) -> int:\n    return q.g(x)\n','h.py':'def g(x): return 1\n'},
     ('h.py','1','2'), True)
case("attr assigned alias", {'m.py':'import h\nq = h.g\ndef f(x: str) -> int:\n    return q(x)\n','h.py':'def g(x): return 1\n'},
     ('h.py','1','2'), True)
case("module getattr", {'m.py':'import h\ndef f(x: str) -> int:\n    return h.zzz\n','h.py':'def __getattr__(n): return V\nV=1\n'},
     ('h.py','1','2'), True)
case("functools partial", {'m.py':'import functools\ndef g(a,x): return 1\nh = functools.partial(g, 1)\ndef f(x: str) -> int:\n    return h(x)\n'},
     ('m.py','return 1','return 2'), True)
case("decorator of f", {'m.py':'def d(fn):\n    return lambda x: 1\n@d\ndef f(x: str) -> int:\n    return 0\n'},
     ('m.py','x: 1','x: 2'), True)
case("conftest style same name local", {'m.py':'def g(): return 1\ndef f(x: str) -> int:\n    y = g\n    return y()\n'},
     ('m.py','return 1','return 2'), True)
case("class attr const order", {'m.py':'class C:\n    a = 1\n    b = a\ndef f(x: str) -> int:\n    return C.b\n'},
     ('m.py','a = 1','a = 2'), True)
case("plain class unused", {'m.py':'class C:\n    a = 1\ndef f(x: str) -> int:\n    return 1\n'},
     ('m.py','a = 1','a = 2'), False)
case("redefinition", {'m.py':'def g(x): return 1\ndef g(x): return 2\n'+F},
     ('m.py','return 2','return 3'), True)
case("src layout sibling path", {'s/m.py':'import h\ndef f(x: str) -> int:\n    return h.g(x)\n','s/h.py':'def g(x): return 1\n'},
     ('s/h.py','1','2'), True, fn='s/m.py:f')
case("pickle dispatch by string", {'m.py':'import h\nT = {"a": "g"}\ndef f(x: str) -> int:\n    return getattr(h, T[x])(x)\n','h.py':'def g(x): return 1\n'},
     ('h.py','1','2'), True)
case("submodule via from pkg import *", {'m.py':'from pkg import *\ndef f(x: str) -> int:\n    return sub.g(x)\n','pkg/__init__.py':'__all__=["sub"]\n','pkg/sub.py':'def g(x): return 1\n'},
     ('pkg/sub.py','1','2'), True)
case("submodule as attribute after other import", {'m.py':'import pkg\nimport other\ndef f(x: str) -> int:\n    return pkg.sub.g(x)\n','other.py':'import pkg.sub\n','pkg/__init__.py':'','pkg/sub.py':'def g(x): return 1\n'},
     ('pkg/sub.py','1','2'), True)
case("type alias kwdefault", {'m.py':'def n(): return 1\ndef f(x: str, *, k=n()) -> int:\n    return k\n'},
     ('m.py','return 1','return 2'), True)
case("nested fn import via exec", {'m.py':'def f(x: str) -> int:\n    exec("import h; y=h.g()")\n    return 1\n','h.py':'def g(): return 1\n'},
     ('h.py','1','2'), True)
case("inherit doc of method", {'m.py':'class A:\n    def g(self):\n        "a"\n        return 1\ndef f(x: str) -> int:\n    return A().g()\n'},
     ('m.py','"a"','"b"'), True)
