"""Edits that change results: each must begin a new run."""

from edits import edit, mapped, process, script, unit
from edits_found import FOUND

#: The one that most edits make of the helper that most scripts have.
TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

IN_FUNCTIONS = {
    "helper": edit(unit("h(s)", HELPER), *TWICE),
    "helper of a helper": edit(unit("g(s)", HELPER + "def g(s): return h(s)"), *TWICE),
    "nested function": edit(
        process(
            """
            def unit_computation(self, s):
                def inner(x):
                    return s.sum()
                return inner(s)
            """
        ),
        *TWICE,
    ),
    "helper of a nested function": edit(
        process(
            """
            def unit_computation(self, s):
                return (lambda x: h(x))(s)
            """,
            HELPER,
        ),
        *TWICE,
    ),
    "default argument": edit(
        process("def unit_computation(self, s, k=K): return k * s.sum()", "K = 1"),
        "K = 1",
        "K = 2",
    ),
    "default argument of a helper": edit(
        unit("h(s)", "K = 1\ndef h(s, k=K): return k * s.sum()"), "K = 1", "K = 2"
    ),
    "keyword-only default": edit(
        unit("h(s)", "def h(s, *, k=1): return k * s.sum()"), "k=1", "k=2"
    ),
    "default argument that is a function": edit(
        unit("h(s)", "def g(s): return s.sum()\ndef h(s, how=g): return how(s)"), *TWICE
    ),
    "generator": edit(
        unit("sum(h(s))", "def h(s):\n    for x in s:\n        yield 1 * x"),
        "1 * x",
        "2 * x",
    ),
    "comprehension in a constant": edit(
        unit("(W * s).sum()", "W = np.array([1.0 for _ in range(4)])"), "1.0", "2.0"
    ),
    "comprehension that calls a helper": edit(
        unit("sum([h(x) for x in s])", "def h(x): return 1 * x"), "1 * x", "2 * x"
    ),
    "match statement": edit(
        unit(
            "h('a') * s.sum()",
            """
            def h(kind):
                match kind:
                    case "a":
                        return 1
                    case _:
                        return 0
            """,
        ),
        "return 1",
        "return 2",
    ),
    "pattern with a constant of a class": edit(
        unit(
            "h(1) * s.sum()",
            """
            class Kind:
                ONE = 1
            def h(kind):
                match kind:
                    case Kind.ONE:
                        return 1
                    case _:
                        return 2
            """,
        ),
        "ONE = 1",
        "ONE = 3",
    ),
    "closure made in a loop": edit(
        unit(
            "sum(g(s) for g in FUNCTIONS)",
            """
            FUNCTIONS = []
            for weight in (0, 1):
                def one(s, weight=weight):
                    return weight * s.sum()
                FUNCTIONS.append(one)
            """,
        ),
        "(0, 1)",
        "(0, 2)",
    ),
    "variable of an enclosing function": edit(
        unit(
            "h(s)",
            """
            def make(k):
                def inner(s):
                    return k * s.sum()
                return inner
            h = make(1)
            """,
        ),
        "make(1)",
        "make(2)",
    ),
    "nonlocal variable of a helper": edit(
        unit(
            "h(s)",
            """
            def h(s):
                total = 0
                def add(x):
                    nonlocal total
                    total += 1 * x
                for x in s:
                    add(x)
                return total
            """,
        ),
        "1 * x",
        "2 * x",
    ),
    "number from which a counter in a closure begins": edit(
        unit(
            "h() * 0 + START * s.sum()",
            """
            START = 1
            def make():
                count = START
                def inner():
                    nonlocal count
                    count += 1
                    return count
                return inner
            h = make()
            """,
        ),
        "START = 1",
        "START = 2",
    ),
    "recursion": edit(
        unit("h(s)", "def h(s): return 0 if not s.size else 1 * s[0] + h(s[1:])"),
        "1 * s[0]",
        "2 * s[0]",
    ),
    "functions that call each other": edit(
        unit(
            "h(s, 1)",
            """
            def h(s, n): return g(s, n - 1) if n else s.sum()
            def g(s, n): return h(s, n)
            """,
        ),
        *TWICE,
    ),
    "arguments with stars": edit(
        unit(
            "h(*ARGUMENTS, s)", "ARGUMENTS = (1,)\ndef h(k, *s): return k * s[0].sum()"
        ),
        "(1,)",
        "(2,)",
    ),
    "arguments with two stars": edit(
        unit("h(s, **HOW)", "HOW = {'k': 1}\ndef h(s, k): return k * s.sum()"),
        "'k': 1",
        "'k': 2",
    ),
    "assignment in an expression": edit(
        unit("(k := K) * s.sum()", "K = 1"), "K = 1", "K = 2"
    ),
    "f-string": edit(unit("float(f'{K}') * s.sum()", "K = 1"), "K = 1", "K = 2"),
    "operands in another order": edit(
        unit("h(s[0], s[1])", "def h(a, b): return a - b"), "a - b", "b - a", 1
    ),
    "integer for a number": edit(
        unit("(s.astype('u1') * K).max()", "K = 100"), "K = 100", "K = 100.0", 700
    ),
    "negative zero": edit(
        unit("np.copysign(1.0, K) * s.sum()", "K = 0.0"), "K = 0.0", "K = -0.0", -22
    ),
    "conditional import": edit(
        {
            "run.py": unit(
                "h(s)",
                """
                try:
                    from missing import h
                except ImportError:
                    from hh import h
                """,
            ),
            "hh.py": HELPER,
        },
        *TWICE,
        file="hh.py",
    ),
    "branch of a condition at import": edit(
        unit(
            "h(s)",
            """
            FAST = True
            if FAST:
                def h(s): return s.sum()
            else:
                def h(s): return 2 * s.sum()
            """,
        ),
        "FAST = True",
        "FAST = False",
    ),
    "lambda": edit(unit("h(s)", "h = lambda s: s.sum()"), *TWICE),
    "two lambdas on one line": edit(
        unit("g(s) + h(s)", "g, h = lambda s: 0 * s.sum(), lambda s: 1 * s.sum()"),
        "1 * s",
        "2 * s",
    ),
    "the other lambda on one line": edit(
        unit("h(s)", "g, h = lambda s: s.prod(), lambda s: s.sum()"),
        "g, h",
        "h, g",
        840,
    ),
    "dict of lambdas": edit(
        unit("F['a'](s)", "F = {'a': lambda s: s.sum(), 'b': lambda s: s.max()}"),
        *TWICE,
    ),
    "dispatch dict": edit(
        unit(
            "F[self.k](s)",
            HELPER + "F = {'h': h}",
            "k = param.Selector(objects=['h'])",
        ),
        *TWICE,
    ),
    "list of functions": edit(unit("F[0](s)", HELPER + "F = [h, max]"), *TWICE),
    "functions in another order": edit(
        unit("F[0](s)", HELPER + "def g(s): return 2 * h(s)\nF = [h, g]"),
        "[h, g]",
        "[g, h]",
    ),
    "functions registered by a decorator": edit(
        unit(
            "F['h'](s)",
            """
            F = {}
            def register(function):
                F[function.__name__] = function
                return function
            @register
            def h(s): return s.sum()
            """,
        ),
        *TWICE,
    ),
    "name found in globals": edit(unit("globals()['h'](s)", HELPER), *TWICE),
    "reduce": edit(
        unit("functools.reduce(h, s)", "def h(a, b): return a + b"),
        "a + b",
        "a * b",
        840,
    ),
    "chain of partials": edit(
        unit(
            "h(s)",
            """
            def g(a, b, s): return a * b * s.sum()
            h = functools.partial(functools.partial(g, 1), 1)
            """,
        ),
        "(g, 1), 1)",
        "(g, 1), 2)",
    ),
    "keyword of a partial": edit(
        unit(
            "h(s)",
            "def g(s, k): return k * s.sum()\nh = functools.partial(g, k=1)",
        ),
        "k=1",
        "k=2",
    ),
    "composed functions": edit(
        unit(
            "h(s)",
            """
            def compose(*parts):
                return functools.reduce(lambda f, g: lambda x: g(f(x)), parts)
            def total(s): return s.sum()
            def scale(x): return 1 * x
            h = compose(total, scale)
            """,
        ),
        "1 * x",
        "2 * x",
    ),
    "cached helper": edit(
        unit("h(22.0)", "@functools.lru_cache\ndef h(x): return 1 * x"),
        "1 * x",
        "2 * x",
    ),
    "helper of a cached helper": edit(
        unit(
            "h(22.0)", "def g(x): return 1 * x\n@functools.cache\ndef h(x): return g(x)"
        ),
        "1 * x",
        "2 * x",
    ),
    "single dispatch": edit(
        unit(
            "h(s)",
            """
            @functools.singledispatch
            def h(s): return 0
            @h.register
            def _(s: np.ndarray): return s.sum()
            """,
        ),
        *TWICE,
    ),
    "context manager": edit(
        unit(
            "h(s)",
            """
            @contextlib.contextmanager
            def scale():
                yield 1
            def h(s):
                with scale() as k:
                    return k * s.sum()
            """,
        ),
        "yield 1",
        "yield 2",
    ),
    "decorator": edit(
        process(
            "@deco\ndef unit_computation(self, s): return s.sum()",
            """
            def deco(f):
                @functools.wraps(f)
                def wrapper(*a): return 1 * f(*a)
                return wrapper
            """,
        ),
        "1 * f",
        "2 * f",
    ),
    "method under a decorator without wraps": edit(
        process(
            "@deco\ndef unit_computation(self, s): return s.sum()",
            "def deco(f):\n    def w(self, s): return f(self, s)\n    return w",
        ),
        *TWICE,
    ),
    "argument of a decorator": edit(
        process(
            "@scale(K)\ndef unit_computation(self, s): return s.sum()",
            """
            def scale(k):
                def deco(f):
                    @functools.wraps(f)
                    def wrapper(self, s): return k * f(self, s)
                    return wrapper
                return deco
            K = 1
            """,
        ),
        "K = 1",
        "K = 2",
    ),
    "decorator taken away": edit(
        process(
            "@deco\ndef unit_computation(self, s): return 2 * s.sum()",
            """
            def deco(f):
                @functools.wraps(f)
                def wrapper(self, s): return f(self, s) / 2
                return wrapper
            """,
        ),
        "@deco",
        "",
    ),
    "class used as a decorator": edit(
        unit(
            "h(s)",
            """
            class Scaled:
                def __init__(self, f): self.f = f
                def __call__(self, s): return 1 * self.f(s)
            @Scaled
            def h(s): return s.sum()
            """,
        ),
        "1 * self.f",
        "2 * self.f",
    ),
    "function set as an attribute of a function": edit(
        unit("h.inner(s)", "def h(s): pass\ndef g(s): return s.sum()\nh.inner = g"),
        *TWICE,
    ),
    "number set as an attribute of a function": edit(
        unit("h(s)", "def h(s): return h.k * s.sum()\nh.k = 1"), "h.k = 1", "h.k = 2"
    ),
    "attrgetter": edit(
        unit(
            "operator.attrgetter('a.k')(T) * s.sum()",
            "T = types.SimpleNamespace(a=types.SimpleNamespace(k=1))",
        ),
        "k=1",
        "k=2",
    ),
    "numpy vectorize": edit(
        unit("h(s).sum()", "h = np.vectorize(lambda x: 1 * x)"), "1 * x", "2 * x"
    ),
    "numpy frompyfunc": edit(
        unit("float(h(s).sum())", "def g(x): return 1 * x\nh = np.frompyfunc(g, 1, 1)"),
        "1 * x",
        "2 * x",
    ),
    "function of numpy": edit(
        unit("h(s)", "h = np.sum"), "h = np.sum", "h = np.prod", 840
    ),
    "function of the standard library": edit(
        unit("h(s)", "h = math.fsum"), "math.fsum", "math.prod", 840
    ),
    "function of numpy imported under a name": edit(
        unit("h(s)", "from numpy import sum as h"), "sum as h", "prod as h", 840
    ),
    "name of a function of numpy that is called": edit(
        unit("np.sum(s)"), "np.sum", "np.prod", 840
    ),
}

IN_MODULES = {
    "sibling module": edit(
        {"run.py": unit("h(s)", "from hh import h"), "hh.py": HELPER},
        *TWICE,
        file="hh.py",
    ),
    "attribute of a module": edit(
        {"run.py": unit("hh.h(s)", "import hh"), "hh.py": HELPER}, *TWICE, file="hh.py"
    ),
    "constant of a module": edit(
        {"run.py": unit("hh.K * s.sum()", "import hh"), "hh.py": "K = 1\n"},
        "K = 1",
        "K = 2",
        file="hh.py",
    ),
    "import in a method": edit(
        {
            "run.py": process(
                "def unit_computation(self, s):\n    from hh import h\n    return h(s)"
            ),
            "hh.py": HELPER,
        },
        *TWICE,
        file="hh.py",
    ),
    "module imported in a method": edit(
        {
            "run.py": process(
                "def unit_computation(self, s):\n    import hh\n    return hh.h(s)"
            ),
            "hh.py": HELPER,
        },
        *TWICE,
        file="hh.py",
    ),
    "helper of a module imported in a method": edit(
        {
            "run.py": process(
                "def unit_computation(self, s):\n    import hh\n    return hh.h(s)"
            ),
            "hh.py": "from gg import g\ndef h(s): return g(s)\n",
            "gg.py": "def g(s): return s.sum()\n",
        },
        *TWICE,
        file="gg.py",
    ),
    "package with relative imports": edit(
        {
            "run.py": unit("pack.top.h(s)", "import pack.top"),
            "pack/__init__.py": "",
            "pack/top.py": "from .low import g\ndef h(s): return g(s)\n",
            "pack/low.py": "def g(s): return s.sum()\n",
        },
        *TWICE,
        file="pack/low.py",
    ),
    "relative import in a function": edit(
        {
            "run.py": unit("h(s)", "from pack.top import h"),
            "pack/__init__.py": "",
            "pack/top.py": "def h(s):\n    from .low import g\n    return g(s)\n",
            "pack/low.py": "def g(s): return s.sum()\n",
        },
        *TWICE,
        file="pack/low.py",
    ),
    "nested package": edit(
        {
            "run.py": unit("pack.sub.low.g(s)", "import pack.sub.low"),
            "pack/__init__.py": "",
            "pack/sub/__init__.py": "",
            "pack/sub/low.py": "from .. import k\ndef g(s): return k.K * s.sum()\n",
            "pack/k.py": "K = 1\n",
        },
        "K = 1",
        "K = 2",
        file="pack/k.py",
    ),
    "name exported again by a package": edit(
        {
            "run.py": unit("pack.g(s)", "import pack"),
            "pack/__init__.py": "from .low import g\n",
            "pack/low.py": "def g(s): return s.sum()\n",
        },
        *TWICE,
        file="pack/low.py",
    ),
    "another name exported by a package": edit(
        {
            "run.py": unit("pack.g(s)", "import pack"),
            "pack/__init__.py": "from .low import one as g\n",
            "pack/low.py": "def one(s): return s.sum()\ndef two(s): return s.prod()\n",
        },
        "one as g",
        "two as g",
        840,
        file="pack/__init__.py",
    ),
    "star import": edit(
        {
            "run.py": unit("h(s)", "from hh import *"),
            "hh.py": "def h(s): return K * s.sum()\nK = 1\n",
        },
        "K = 1",
        "K = 2",
        file="hh.py",
    ),
    "module in a dict": edit(
        {"run.py": unit("M['h'].h(s)", "import hh\nM = {'h': hh}"), "hh.py": HELPER},
        *TWICE,
        file="hh.py",
    ),
    "module under a second name": edit(
        {
            "run.py": unit("other.h(s)", "import hh\nother = hh"),
            "hh.py": HELPER,
        },
        *TWICE,
        file="hh.py",
    ),
    "module given to a function": edit(
        {
            "run.py": unit("g(hh, s)", "import hh\ndef g(m, s): return m.h(s)"),
            "hh.py": "import gg\ndef h(s): return gg.g(s)\n",
            "gg.py": "def g(s): return s.sum()\n",
        },
        *TWICE,
        file="gg.py",
    ),
    "function replaced from another module": edit(
        {
            "run.py": unit("hh.h(s)", "import hh, patch"),
            "hh.py": HELPER,
            "patch.py": "import hh\nhh.h = lambda s: 1 * s.sum()\n",
        },
        "1 * s",
        "2 * s",
        file="patch.py",
    ),
    "constant replaced from another module": edit(
        {
            "run.py": unit("hh.h(s)", "import hh, patch"),
            "hh.py": "K = 3\ndef h(s): return K * s.sum()\n",
            "patch.py": "import hh\nhh.K = 1\n",
        },
        "hh.K = 1",
        "hh.K = 2",
        file="patch.py",
    ),
    "method replaced from another module": edit(
        {
            "run.py": unit(
                "self.g(s)",
                "import patch",
                "def g(self, s): return 7\n",
            ).replace("def compute():", "P.g = patch.g\ndef compute():"),
            "patch.py": "def g(self, s): return s.sum()\n",
        },
        *TWICE,
        file="patch.py",
    ),
    "module that gives names by __getattr__": edit(
        {
            "run.py": unit("hh.K * s.sum()", "import hh"),
            "hh.py": "def __getattr__(name):\n    return {'K': 1}[name]\n",
        },
        "'K': 1",
        "'K': 2",
        file="hh.py",
    ),
    "base class in a module": edit(
        {
            "run.py": script("from bb import B\nclass P(B): pass"),
            "bb.py": """import resumable as rs
class B(rs.Process):
    outputs = {"m": rs.Output()}
    def unit_computation(self, s): return s.sum()
""",
        },
        *TWICE,
        file="bb.py",
    ),
    "mixin in a module": edit(
        {
            "run.py": unit(
                "self.g(s)", "from bb import Mixin", bases="Mixin, rs.Process"
            ),
            "bb.py": "class Mixin:\n    def g(self, s): return s.sum()\n",
        },
        *TWICE,
        file="bb.py",
    ),
    "importlib in a helper": edit(
        {
            "run.py": unit(
                "h(s)",
                """
                import importlib
                def h(s): return importlib.import_module("hh").h(s)
                """,
            ),
            "hh.py": HELPER,
        },
        *TWICE,
        file="hh.py",
    ),
    "helper by exec": edit(unit("h(s)", "exec('def h(s): return s.sum()')"), *TWICE),
    "text given to eval": edit(unit("eval(TEXT)", "TEXT = 's.sum()'"), *TWICE),
    "class by exec": edit(
        script(
            """
            namespace = dict(globals())
            exec('''
            class P(rs.Process):
                outputs = {"m": rs.Output()}
                def unit_computation(self, s): return s.sum()
            '''.replace("\\n            ", "\\n"), namespace)
            P = namespace["P"]
            """
        ),
        *TWICE,
    ),
}

IN_CLASSES = {
    "class attribute": edit(
        unit("self.K * s.sum()", members="K = 1"), "K = 1", "K = 2"
    ),
    "class attribute of a mixin after Process": edit(
        unit(
            "self.K * s.sum()",
            "class Mixin:\n    K = 1",
            bases="rs.Process, Mixin",
        ),
        "K = 1",
        "K = 2",
    ),
    "class attribute by the name of the class": edit(
        unit("P.K * s.sum()", members="K = 1"), "K = 1", "K = 2"
    ),
    "order of bases": edit(
        unit(
            "self.K * s.sum()",
            "class A:\n    K = 1\nclass B:\n    K = 2",
            bases="A, B, rs.Process",
        ),
        "A, B",
        "B, A",
    ),
    "chain of super": edit(
        unit(
            "self.g(s)",
            """
            class A:
                def g(self, s): return s.sum()
            class B(A):
                def g(self, s): return super().g(s)
            """,
            "def g(self, s): return super().g(s)",
            bases="B, rs.Process",
        ),
        *TWICE,
    ),
    "property": edit(
        unit("self.k * s.sum()", members="@property\ndef k(self): return 1"),
        "return 1",
        "return 2",
    ),
    "cached property": edit(
        unit(
            "self.k * s.sum()",
            members="@functools.cached_property\ndef k(self): return 1",
        ),
        "return 1",
        "return 2",
    ),
    "descriptor": edit(
        unit(
            "self.k * s.sum()",
            """
            class Fixed:
                def __init__(self, value): self.value = value
                def __get__(self, one, owner): return self.value
            """,
            "k = Fixed(1)",
        ),
        "Fixed(1)",
        "Fixed(2)",
    ),
    "code of a descriptor": edit(
        unit(
            "self.k * s.sum()",
            "class Fixed:\n    def __get__(self, one, owner): return 1",
            "k = Fixed()",
        ),
        "return 1",
        "return 2",
    ),
    "__getattr__": edit(
        unit(
            "self.k * s.sum()",
            members="def __getattr__(self, name):\n    if name == 'k': return 1\n"
            "    raise AttributeError(name)",
        ),
        "return 1",
        "return 2",
    ),
    "getattr by a name that is computed": edit(
        unit("getattr(self, 'g' + '1')(s)", members="def g1(self, s): return s.sum()"),
        *TWICE,
    ),
    "static method": edit(
        unit("self.h(s)", members="@staticmethod\ndef h(s): return s.sum()"), *TWICE
    ),
    "class method": edit(
        unit("self.h(s)", members="@classmethod\ndef h(cls, s): return s.sum()"), *TWICE
    ),
    "computation that is static": edit(
        process("@staticmethod\ndef unit_computation(s): return s.sum()"), *TWICE
    ),
    "computation that is a function from outside": edit(
        process("unit_computation = h", "def h(self, s): return s.sum()"), *TWICE
    ),
    "computation that is a static function from outside": edit(
        process("unit_computation = staticmethod(h)", HELPER), *TWICE
    ),
    "computation that is a partial": edit(
        process(
            "unit_computation = staticmethod(functools.partial(h, k=1))",
            "def h(s, k): return k * s.sum()",
        ),
        "k=1",
        "k=2",
    ),
    "function of a partial": edit(
        process(
            "unit_computation = staticmethod(functools.partial(h, k=1))",
            "def h(s, k): return k * s.sum()",
        ),
        "k * s",
        "2 * k * s",
    ),
    "computation that is a partial method": edit(
        process(
            """
            def h(self, s, k): return k * s.sum()
            unit_computation = functools.partialmethod(h, k=1)
            """
        ),
        "k=1",
        "k=2",
    ),
    "computation that is a lambda": edit(
        process("unit_computation = lambda self, s: s.sum()"), *TWICE
    ),
    "computation set from outside": edit(
        unit("0").replace(
            "def compute():",
            "def f(self, s): return s.sum()\nP.unit_computation = f\ndef compute():",
        ),
        *TWICE,
    ),
    "block_computation": edit(
        process(
            "def block_computation(self, s): return h(s)",
            "def h(s): return s.sum(axis=1)",
        ),
        "s.sum(axis=1)",
        "2 * s.sum(axis=1)",
    ),
    "setup": edit(
        unit("self.k * s.sum()", members="def setup(self): self.k = 1"),
        "self.k = 1",
        "self.k = 2",
    ),
    "helper of setup": edit(
        unit(
            "self.k * s.sum()",
            "def h(): return 1",
            "def setup(self): self.k = h()",
        ),
        "return 1",
        "return 2",
    ),
    "constructor": edit(
        unit(
            "self.k * s.sum()",
            members="def __init__(self, *a, **b):\n    super().__init__(*a, **b)\n"
            "    self.k = 1",
        ),
        "self.k = 1",
        "self.k = 2",
    ),
    "argument of a constructor": edit(
        unit(
            "self.k * s.sum()",
            members="def __init__(self, source, k):\n    super().__init__(source)\n"
            "    self.k = k",
        ).replace('data")', 'data", k=1)'),
        "k=1",
        "k=2",
    ),
    "attribute set from outside": edit(
        unit("self.k * s.sum()").replace(
            'return P("scan.h5::/data").',
            'p = P("scan.h5::/data"); p.k = 1\n    return p.',
        ),
        "p.k = 1",
        "p.k = 2",
    ),
    "function set as an attribute from outside": edit(
        unit("self.f(s)", HELPER).replace(
            'return P("scan.h5::/data").',
            'p = P("scan.h5::/data"); p.f = h\n    return p.',
        ),
        *TWICE,
    ),
    "class attribute with a name of ours": edit(
        unit("self._geometry_of * s.sum()", members="_geometry_of = 1"),
        "_geometry_of = 1",
        "_geometry_of = 2",
    ),
    "attribute with a private name": edit(
        unit("self.__k * s.sum()", members="__k = 1"), "__k = 1", "__k = 2"
    ),
    "helper class": edit(
        unit(
            "M.f(s)",
            "class M:\n    @staticmethod\n    def f(s): return s.sum()",
        ),
        *TWICE,
    ),
    "class attribute of a helper object": edit(
        unit(
            "M.f(s)",
            """
            class Model:
                k = 1
                def f(self, s): return self.k * s.sum()
            M = Model()
            """,
        ),
        "k = 1",
        "k = 2",
    ),
    "attribute of a helper object": edit(
        unit(
            "M.f(s)",
            """
            class Model:
                def __init__(self, k): self.k = k
                def f(self, s): return self.k * s.sum()
            M = Model(1)
            """,
        ),
        "Model(1)",
        "Model(2)",
    ),
    "helper object with slots": edit(
        unit(
            "M.f(s)",
            """
            class Model:
                __slots__ = ("k",)
                def __init__(self, k): self.k = k
                def f(self, s): return self.k * s.sum()
            M = Model(1)
            """,
        ),
        "Model(1)",
        "Model(2)",
    ),
    "helper object made in the computation": edit(
        unit(
            "Model(1).f(s)",
            """
            class Model:
                def __init__(self, k): self.k = k
                def f(self, s): return self.k * s.sum()
            """,
        ),
        "self.k * s",
        "2 * self.k * s",
    ),
    "function in the state of an object": edit(
        unit(
            "M.f(s)",
            HELPER
            + """
class Model:
    pass
M = Model()
M.f = h
""",
        ),
        *TWICE,
    ),
    "class in a container": edit(
        unit(
            "KINDS['a']().f(s)",
            """
            class A:
                def f(self, s): return s.sum()
            KINDS = {"a": A}
            """,
        ),
        *TWICE,
    ),
    "operator of a helper class": edit(
        unit(
            "(Number(22.0) + Number(0.0)).x",
            """
            class Number:
                def __init__(self, x): self.x = x
                def __add__(self, other): return Number(1 * self.x + other.x)
            """,
        ),
        "1 * self.x",
        "2 * self.x",
    ),
    "item access of a helper class": edit(
        unit(
            "T['a'] * s.sum()",
            "class Table:\n    def __getitem__(self, key): return 1\nT = Table()",
        ),
        "return 1",
        "return 2",
    ),
    "__call__ of a helper object": edit(
        unit(
            "M(s)",
            "class Model:\n    def __call__(self, s): return s.sum()\nM = Model()",
        ),
        *TWICE,
    ),
    "__iter__ of a helper object": edit(
        unit(
            "sum(M) * s.sum()",
            "class Model:\n    def __iter__(self): yield 1\nM = Model()",
        ),
        "yield 1",
        "yield 2",
    ),
    "context manager that is a class": edit(
        unit(
            "h(s)",
            """
            class Scale:
                def __enter__(self): return 1
                def __exit__(self, *how): pass
            def h(s):
                with Scale() as k:
                    return k * s.sum()
            """,
        ),
        "return 1",
        "return 2",
    ),
    "subclass of list": edit(
        unit(
            "W.total() * s.sum()",
            """
            class Weights(list):
                def total(self): return sum(self)
            W = Weights([1])
            """,
        ),
        "[1]",
        "[2]",
    ),
    "subclass of dict": edit(
        unit(
            "W['b'] * s.sum()",
            """
            class Weights(dict):
                def __missing__(self, key): return 1
            W = Weights()
            """,
        ),
        "return 1",
        "return 2",
    ),
    "subclass of float": edit(
        unit(
            "W.twice() * s.sum()",
            "class Weight(float):\n    def twice(self): return 1 * self\nW = Weight(1)",
        ),
        "1 * self",
        "2 * self",
    ),
    "subclass of an array": edit(
        unit(
            "W.twice(s)",
            """
            class Weights(np.ndarray):
                def twice(self, s): return 1 * s.sum()
            W = np.ones(4).view(Weights)
            """,
        ),
        "1 * s",
        "2 * s",
    ),
    "abstract base class": edit(
        unit(
            "M.f(s)",
            """
            class Base(abc.ABC):
                @abc.abstractmethod
                def g(self, s): ...
                def f(self, s): return 1 * self.g(s)
            class Model(Base):
                def g(self, s): return s.sum()
            M = Model()
            """,
        ),
        "1 * self",
        "2 * self",
    ),
    "dataclass default": edit(
        unit("C().k * s.sum()", "@dataclasses.dataclass\nclass C:\n    k: int = 1"),
        "int = 1",
        "int = 2",
    ),
    "dataclass default_factory": edit(
        unit(
            "C().k[0] * s.sum()",
            """
            @dataclasses.dataclass
            class C:
                k: list = dataclasses.field(default_factory=lambda: [1])
            """,
        ),
        "[1]",
        "[2]",
    ),
    "value in a dataclass": edit(
        unit(
            "C.k * s.sum()",
            "@dataclasses.dataclass(frozen=True)\nclass D:\n    k: int\nC = D(1)",
        ),
        "D(1)",
        "D(2)",
    ),
    "__post_init__ of a dataclass": edit(
        unit(
            "C(1).k * s.sum()",
            """
            @dataclasses.dataclass
            class C:
                k: int
                def __post_init__(self): self.k = 1 * self.k
            """,
        ),
        "1 * self",
        "2 * self",
    ),
    "order of the fields of a dataclass": edit(
        unit(
            "C(2, 1).a * s.sum()",
            "@dataclasses.dataclass\nclass C:\n    b: int\n    a: int",
        ),
        "b: int\n    a: int",
        "a: int\n    b: int",
    ),
    "enum value": edit(
        unit("E.A.value * s.sum()", "class E(enum.Enum):\n    A = 1"), "A = 1", "A = 2"
    ),
    "method of an enum": edit(
        unit(
            "E.A.f(s)",
            "class E(enum.Enum):\n    A = 1\n    def f(self, s): return s.sum()",
        ),
        *TWICE,
    ),
    "NamedTuple default": edit(
        unit("T().k * s.sum()", "class T(typing.NamedTuple):\n    k: int = 1"),
        "int = 1",
        "int = 2",
    ),
    "method of a NamedTuple": edit(
        unit(
            "T(1).f(s)",
            """
            class T(typing.NamedTuple):
                k: int
                def f(self, s): return s.sum()
            """,
        ),
        *TWICE,
    ),
    "value in a NamedTuple": edit(
        unit(
            "X.k * s.sum()",
            "class T(typing.NamedTuple):\n    k: int\nX = T(1)",
        ),
        "T(1)",
        "T(2)",
    ),
    "class decorator": edit(
        script(
            """
            def injected(k):
                def deco(cls):
                    cls.k = k
                    return cls
                return deco
            @injected(1)
            class P(rs.Process):
                outputs = {"m": rs.Output()}
                def unit_computation(self, s): return self.k * s.sum()
            """
        ),
        "injected(1)",
        "injected(2)",
    ),
    "method set by a class decorator": edit(
        unit(
            "Model().f(s)",
            """
            def with_f(cls):
                cls.f = lambda self, s: s.sum()
                return cls
            @with_f
            class Model: pass
            """,
        ),
        *TWICE,
    ),
    "__init_subclass__": edit(
        unit(
            "B.k * s.sum()",
            """
            class A:
                def __init_subclass__(cls, k): cls.k = k
            class B(A, k=1): pass
            """,
        ),
        "k=1)",
        "k=2)",
    ),
    "metaclass of a helper class": edit(
        unit(
            "Model.k * s.sum()",
            """
            class Meta(type):
                def __new__(cls, name, bases, space):
                    space["k"] = 1
                    return super().__new__(cls, name, bases, space)
            class Model(metaclass=Meta): pass
            """,
        ),
        '["k"] = 1',
        '["k"] = 2',
    ),
    "method of a metaclass": edit(
        unit(
            "Model.f(s)",
            """
            class Meta(type):
                def f(cls, s): return s.sum()
            class Model(metaclass=Meta): pass
            """,
        ),
        *TWICE,
    ),
    "metaclass of the process": edit(
        script(
            """
            class Meta(type(rs.Process)):
                def __new__(cls, name, bases, space, **others):
                    space["k"] = 1
                    return super().__new__(cls, name, bases, space, **others)
            class P(rs.Process, metaclass=Meta):
                outputs = {"m": rs.Output()}
                def unit_computation(self, s): return self.k * s.sum()
            """
        ),
        '["k"] = 1',
        '["k"] = 2',
    ),
    "class made by type": edit(
        script(
            """
            def f(self, s): return s.sum()
            P = type("P", (rs.Process,), {"outputs": {"m": rs.Output()},
                                          "unit_computation": f})
            """
        ),
        *TWICE,
    ),
    "class made in a function": edit(
        script(
            """
            def make(k):
                class P(rs.Process):
                    outputs = {"m": rs.Output()}
                    def unit_computation(self, s): return k * s.sum()
                return P
            P = make(1)
            """
        ),
        "make(1)",
        "make(2)",
    ),
    "constant in the body of a class in a function": edit(
        script(
            """
            def make(k):
                class P(rs.Process):
                    outputs = {"m": rs.Output()}
                    weight = 1 * k
                    def unit_computation(self, s): return self.weight * s.sum()
                return P
            P = make(1)
            """
        ),
        "make(1)",
        "make(2)",
    ),
    "class attribute computed in a loop": edit(
        unit(
            "self.W[0] * s.sum()", members="W = []\nfor i in (1, 3):\n    W.append(i)"
        ),
        "(1, 3)",
        "(2, 3)",
    ),
    "docstring that is read": edit(
        unit("float(C.__doc__) * s.sum()", "class C:\n    '1'"), "'1'", "'2'"
    ),
    "annotation that is read": edit(
        unit(
            "typing.get_type_hints(C)['k'](1.5) * s.sum()",
            "class C:\n    k: int",
        ),
        "k: int",
        "k: float",
        33,
    ),
    "parameter default": edit(
        unit("self.k * s.sum()", members="k = param.Number(1)"),
        "Number(1)",
        "Number(2)",
    ),
    "parameter default from a constant": edit(
        unit("self.k * s.sum()", "K = 1", "k = param.Number(K)"), "K = 1", "K = 2"
    ),
    "function in a Selector": edit(
        unit("self.k(s)", HELPER, "k = param.Selector(objects={'h': h})"), *TWICE
    ),
    "parameter that is a callable": edit(
        unit("self.k(s)", HELPER, "k = param.Callable(h)"), *TWICE
    ),
    "parameter that depends on another": edit(
        unit(
            "self.k * s.sum()",
            members="""
            j = param.Number(1)
            k = param.Number(0)
            def __init__(self, *a, **b):
                super().__init__(*a, **b)
                self.k = 1 * self.j
            """,
        ),
        "1 * self.j",
        "2 * self.j",
    ),
}

IN_VALUES = {
    "number": edit(unit("K * s.sum()", "K = 1"), "K = 1", "K = 2"),
    "lookup table": edit(unit("T['a'] * s.sum()", "T = {'a': 1}"), "'a': 1", "'a': 2"),
    "nested lookup table": edit(
        unit("T['a'][0]['b'] * s.sum()", "T = {'a': [{'b': 1}]}"), "'b': 1", "'b': 2"
    ),
    "order of a dict": edit(
        unit("next(iter(T.values())) * s.sum()", "T = {'a': 1, 'b': 2}"),
        "'a': 1, 'b': 2",
        "'b': 2, 'a': 1",
    ),
    "array": edit(
        unit("(W * s).sum()", "W = np.ones(4)"), "np.ones(4)", "np.full(4, 2.)"
    ),
    "one bit of an array": edit(
        unit("np.spacing(W[1]) * 2.0 ** 52 * s.sum()", "W = np.ones(4)\nW[1] = 1"),
        "W[1] = 1",
        "W[1] = 2",
    ),
    "type of an array": edit(
        unit("(s.astype('u1') * W).max()", "W = np.full(4, 100, 'u1')"),
        "'u1')\n",
        "'i8')\n",
        700,
    ),
    "sparse matrix": edit(
        unit(
            "(W @ s).sum()",
            "import scipy.sparse\nW = scipy.sparse.csr_array(np.eye(4) * 1)",
        ),
        "* 1)",
        "* 2)",
    ),
    "spline": edit(
        unit(
            "float(W(1.0)) * s.sum()",
            """
            from scipy.interpolate import CubicSpline
            W = CubicSpline(range(4), [0, 1, 2, 3])
            """,
        ),
        "[0, 1, 2, 3]",
        "[0, 2, 4, 6]",
    ),
    "polynomial of numpy": edit(
        unit("W(1.0) * s.sum()", "W = np.polynomial.Polynomial([0, 1])"),
        "[0, 1]",
        "[0, 2]",
    ),
    "constant computed from another": edit(
        unit("W * s.sum()", "K = 1\nW = math.sqrt(K * K)"), "K = 1", "K = 2"
    ),
    "constant computed by a function": edit(
        unit("W * s.sum()", "def make(): return 1\nW = make()"), "return 1", "return 2"
    ),
    "constant that a local name hides elsewhere": edit(
        unit(
            "h(s)",
            """
            K = 1
            def h(s): return K * g(s)
            def g(s):
                K = s.sum()
                return K
            """,
        ),
        "K = 1",
        "K = 2",
    ),
    "constant with the name of a variable that a method fills": edit(
        unit(
            "h(s)",
            """
            items = [1]
            def h(s): return items[0] * g(s)
            def g(s):
                items = []
                items.append(s.sum())
                return items[0]
            """,
        ),
        "items = [1]",
        "items = [2]",
    ),
    "list that is read and filled": edit(
        unit(
            "h(s)",
            """
            ITEMS = [1]
            def h(s):
                ITEMS.append(s.sum())
                return ITEMS[0] * s.sum()
            """,
        ),
        "ITEMS = [1]",
        "ITEMS = [2]",
    ),
    "first entry of a cache": edit(
        unit(
            "h(1) * s.sum()",
            """
            CACHE = {1: 1}
            def h(x):
                if x not in CACHE:
                    CACHE[x] = 7
                return CACHE[x]
            """,
        ),
        "{1: 1}",
        "{1: 2}",
    ),
    "first value of a counter": edit(
        unit(
            "h(s)",
            """
            count = 1
            def h(s):
                global count
                first, count = count, count
                return first * s.sum()
            """,
        ),
        "count = 1",
        "count = 2",
    ),
    "first value of a counter in a module": edit(
        {
            "run.py": unit(
                "h(s)", "import hh\ndef h(s):\n    hh.k += 0\n    return hh.k * s.sum()"
            ),
            "hh.py": "k = 1\n",
        },
        "k = 1",
        "k = 2",
        file="hh.py",
    ),
    "object whose method changes another attribute": edit(
        unit(
            "M.f(s)",
            """
            class Model:
                def __init__(self, k):
                    self.k, self.calls = k, 0
                def f(self, s):
                    self.calls += 1
                    return self.k * s.sum()
            M = Model(1)
            """,
        ),
        "Model(1)",
        "Model(2)",
    ),
    "class attribute that is a cache": edit(
        unit(
            "h(1) * s.sum()",
            """
            class Cache:
                known = {1: 1}
            def h(x):
                if x not in Cache.known:
                    Cache.known[x] = 7
                return Cache.known[x]
            """,
        ),
        "{1: 1}",
        "{1: 2}",
    ),
    "seed of a generator": edit(
        unit("0 * G.normal() + K * s.sum()", "K = 1\nG = np.random.default_rng(K)"),
        "K = 1",
        "K = 2",
    ),
    "environment variable": edit(
        unit("float(os.environ['WEIGHT']) * s.sum()"),
        "",
        "",
        environment=({"WEIGHT": "1"}, {"WEIGHT": "2"}),
    ),
    "environment variable read at import": edit(
        unit("K * s.sum()", "K = float(os.environ['WEIGHT'])"),
        "",
        "",
        environment=({"WEIGHT": "1"}, {"WEIGHT": "2"}),
    ),
    "environment variable by getenv": edit(
        unit("h() * s.sum()", "def h(): return float(os.getenv('WEIGHT', '3'))"),
        "",
        "",
        environment=({"WEIGHT": "1"}, {"WEIGHT": "2"}),
    ),
    "file that setup reads": edit(
        {
            "run.py": unit(
                "self.k * s.sum()",
                members="def setup(self): self.k = json.load(open('k.json'))['k']",
            ),
            "k.json": '{"k": 1}',
        },
        "1",
        "2",
        file="k.json",
    ),
    "file that a parameter names": edit(
        {
            "run.py": unit(
                "self.k * s.sum()",
                members="file = param.Path('k.txt')\n"
                "def setup(self): self.k = float(open(self.file).read())",
            ),
            "k.txt": "1",
        },
        "1",
        "2",
        file="k.txt",
    ),
    "file that a constant names": edit(
        {
            "run.py": unit(
                "self.k * s.sum()",
                "import pathlib\nFILE = pathlib.Path('k.txt')",
                "def setup(self): self.k = float(FILE.read_text())",
            ),
            "k.txt": "1",
        },
        "1",
        "2",
        file="k.txt",
    ),
    "text that names a file": edit(
        {
            "run.py": unit(
                "self.k * s.sum()",
                "FILE = 'k.txt'",
                "def setup(self): self.k = float(open(FILE).read())",
            ),
            "k.txt": "1",
        },
        "1",
        "2",
        file="k.txt",
    ),
}

IN_MAPS = {
    "function": edit(mapped("def f(s): return s.sum()"), *TWICE),
    "default from a constant": edit(
        mapped("K = 1\ndef f(s, k=K): return k * s.sum()"), "K = 1", "K = 2"
    ),
    "default that is an object": edit(
        mapped(
            """
            class Weight:
                def __init__(self, v): self.v = v
            def f(s, k=Weight(1)): return k.v * s.sum()
            """
        ),
        "Weight(1)",
        "Weight(2)",
    ),
    "helper": edit(mapped(HELPER + "def f(s): return h(s)"), *TWICE),
    "lambda": edit(mapped("f = lambda s: s.sum()"), *TWICE),
    "partial": edit(
        mapped("def g(k, s): return k * s.sum()\nf = functools.partial(g, 1)"),
        "(g, 1)",
        "(g, 2)",
    ),
    "partial with a version": edit(
        mapped(
            "def g(s, k): return k * s.sum()\nf = functools.partial(g, k=1)"
        ).replace("given = {}", "given = {'version': 1}"),
        "k=1",
        "k=2",
    ),
    "function of a partial with a version": edit(
        mapped(
            """
            def g(k, s): return k * s.sum()
            def h(k, s): return k * s.prod()
            f = functools.partial(g, 1)
            """
        ).replace("given = {}", "given = {'version': 1}"),
        "(g, 1)",
        "(h, 1)",
        840,
    ),
    "bound method": edit(
        mapped(
            """
            class Model:
                def __init__(self, k): self.k = k
                def f(self, s): return self.k * s.sum()
            f = Model(1).f
            """
        ),
        "Model(1)",
        "Model(2)",
    ),
    "callable object": edit(
        mapped(
            """
            class Model:
                def __init__(self, k): self.k = k
                def __call__(self, s): return self.k * s.sum()
            f = Model(1)
            """
        ),
        "Model(1)",
        "Model(2)",
    ),
    "callable object with a version": edit(
        mapped(
            """
            class Model:
                def __init__(self, k): self.k = k
                def __call__(self, s): return self.k * s.sum()
            f = Model(1)
            """
        ).replace("given = {}", "given = {'version': 1}"),
        "Model(1)",
        "Model(2)",
    ),
    "function of numpy": edit(mapped("f = np.sum"), "np.sum", "np.prod", 840),
    "method of a ufunc": edit(mapped("f = np.add.reduce"), "np.add", "np.maximum", 7),
    "function of Python with a version": edit(
        mapped("f = math.fsum").replace("given = {}", "given = {'version': 1}"),
        "math.fsum",
        "math.prod",
        840,
    ),
    "variable of an enclosing function": edit(
        mapped(
            """
            def make(k):
                def f(s): return k * s.sum()
                return f
            f = make(1)
            """
        ),
        "make(1)",
        "make(2)",
    ),
    "bound method in a closure": edit(
        mapped(
            """
            class Model:
                def __init__(self, k): self.k = k
                def f(self, s): return self.k * s.sum()
            def make(model):
                def f(s): return model.f(s)
                return f
            f = make(Model(1))
            """
        ),
        "Model(1)",
        "Model(2)",
    ),
    "decorator with wraps": edit(
        mapped(
            """
            def deco(g):
                @functools.wraps(g)
                def wrapper(s): return 1 * g(s)
                return wrapper
            @deco
            def f(s): return s.sum()
            """
        ),
        "1 * g",
        "2 * g",
    ),
    "argument": edit(
        mapped("def f(s, k): return k * s.sum()\ngiven = {'k': 1}").replace(
            "given = {}\n", ""
        ),
        "{'k': 1}",
        "{'k': 2}",
    ),
    "argument that is a function": edit(
        mapped(HELPER + "def f(s, k): return k(s)").replace(
            "given = {}", "given = {'k': h}"
        ),
        *TWICE,
    ),
    "vectorize": edit(
        mapped("g = np.vectorize(lambda x: 1 * x)\nf = lambda s: g(s).sum()"),
        "1 * x",
        "2 * x",
    ),
    "method of a spline": edit(
        mapped(
            """
            from scipy.interpolate import CubicSpline
            spline = CubicSpline(range(4), [0, 1, 2, 3])
            def f(s): return float(spline(1.0)) * s.sum()
            """
        ),
        "[0, 1, 2, 3]",
        "[0, 2, 4, 6]",
    ),
}

IN_NUMBA = {
    "njit": edit(
        unit("h(s)", "import numba\n@numba.njit\ndef h(s): return s.sum()"), *TWICE
    ),
    "static njit": edit(
        unit(
            "self.h(s)",
            "import numba",
            "@staticmethod\n@numba.njit\ndef h(s): return s.sum()",
        ),
        *TWICE,
    ),
    "njit with a cache": edit(
        unit("h(s)", "import numba\n@numba.njit(cache=True)\ndef h(s): return s.sum()"),
        *TWICE,
    ),
    "njit that calls njit": edit(
        unit(
            "h(s)",
            """
            import numba
            @numba.njit
            def g(s): return s.sum()
            @numba.njit
            def h(s): return g(s)
            """,
        ),
        *TWICE,
    ),
    "constant of njit": edit(
        unit("h(s)", "import numba\nK = 1\n@numba.njit\ndef h(s): return K * s.sum()"),
        "K = 1",
        "K = 2",
    ),
    "closure of njit": edit(
        unit(
            "h(s)",
            """
            import numba
            def make(k):
                @numba.njit
                def inner(s): return k * s.sum()
                return inner
            h = make(1)
            """,
        ),
        "make(1)",
        "make(2)",
    ),
    "options of njit": edit(
        unit(
            "h(s[0] - 4.0)",
            """
            import numba
            @numba.njit(error_model="python")
            def g(x): return 1.0 / x
            def h(x):
                try:
                    return g(x)
                except ZeroDivisionError:
                    return 22.0
            """,
        ),
        'error_model="python"',
        'error_model="numpy"',
        float("inf"),
    ),
    "numba vectorize": edit(
        unit("h(s).sum()", "import numba\n@numba.vectorize\ndef h(x): return 1 * x"),
        "1 * x",
        "2 * x",
    ),
    "numba guvectorize": edit(
        unit(
            "h(s)",
            """
            import numba
            @numba.guvectorize(["f8[:], f8[:]"], "(n)->()")
            def h(s, out): out[0] = 1 * s.sum()
            """,
        ),
        "1 * s",
        "2 * s",
    ),
}

NOTICED = {
    "functions": IN_FUNCTIONS,
    "modules": IN_MODULES,
    "classes": IN_CLASSES,
    "values": IN_VALUES,
    "map": IN_MAPS,
    "numba": IN_NUMBA,
    "found": FOUND,
}
