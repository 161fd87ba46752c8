"""Edits of functions, and of what they are made of."""

from edits import edit, process, unit

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

FUNCTIONS = {
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
