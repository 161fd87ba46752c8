"""Edits of classes and of their members."""

from edits import edit, process, unit

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

CLASSES = {
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
}
