"""Edits of what is given to rs.map."""

from edits import edit, mapped

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

MAPS = {
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
