"""Small scripts and one edit of each that changes its result, or that changes nothing.

Every script computes one number of ``s``, the four numbers 4, 5, 6 and 7: 22 before the
edit and, if nothing else is said, 44 after it. It does so in a function ``unit(s)``, or
in the method ``unit_computation(self, s)`` of a class ``Unit``. ``edits.py`` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Edit:
    """A script and what is edited in it."""

    kind: str
    """Row of the table that the edit belongs to."""

    name: str
    """What is edited."""

    unit: str
    """Code that defines ``unit`` or ``Unit``."""

    old: str
    """Text that is replaced, in the script and the files beside it."""

    new: str
    """Text that replaces it."""

    above: str = ""
    """Code above ``unit``: what it uses."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Files beside the script, by name."""

    variable: tuple[str, str] | None = None
    """Values of the environment variable ``GAIN`` before and after."""

    first: float = 22
    """Result before the edit."""

    right: float = 44
    """Result after the edit."""

    version: bool = False
    """Whether the user declares a version, the same before and after the edit."""

    compiled: tuple[str, ...] | None = None
    """Helpers that numba compiles beside ``unit``; None where it cannot take part."""

    @property
    def harmless(self) -> bool:
        """Whether the edit changes no result."""
        return self.first == self.right

    @property
    def is_class(self) -> bool:
        """Whether a class computes, and not a function."""
        return "Unit" in self.above + self.unit

    def made(self) -> Edit:
        """Return the script after the edit."""
        if not self.old:
            return self
        files = {name: self._after(text) for name, text in self.files.items()}
        return replace(
            self,
            above=self._after(self.above),
            unit=self._after(self.unit),
            files=files,
        )

    def _after(self, text: str) -> str:
        return text.replace(self.old, self.new)


def unit_class(returns: str, body: str = "") -> str:
    """Return the code of a class whose unit computation returns an expression."""
    method = f"    def unit_computation(self, s):\n        return {returns}\n"
    return f"class Unit(Base):\n{body}{method}"


SUM = "def unit(s):\n    return s.sum()\n"
HELPER = "def h(s):\n    return s.sum()\n"
CALLS_HELPER = "def unit(s):\n    return h(s)\n"
TWICE = {"old": "s.sum()", "new": "s.sum() * 2"}
SETS_K = "    def __init__(self, k):\n        self.k = k\n"
WRAPPER = """\
def decorate(f):
    @functools.wraps(f)
    def wrapper(*arguments):
        return f(*arguments) * 1
    return wrapper
"""
SCALE = """\
def scale(k):
    def decorate(f):
        @functools.wraps(f)
        def wrapper(*arguments):
            return k * f(*arguments)
        return wrapper
    return decorate
"""

BODY = "the function's own text"
UNDER = "the text of a decorated function"
HELPERS = "a helper in the same file"
SIBLINGS = "a helper in a file beside it"
CONSTANTS = "a constant of the file"
DEFAULTS = "a default argument"
CLOSURES = "a value that a closure holds"
PARTIALS = "what functools.partial holds"
DECORATORS = "a decorator, its argument"
COMPILED = "a helper compiled by numba"
DISPATCH = "a function found by dispatch"
OBJECTS = "an object of the file"
METHODS = "the state of a callable object"
LIBRARY = "the function of a library"
VERSIONED = "a callable with a version"
ENVIRONMENT = "an environment variable"
HARMLESS = "nothing that counts"

EDITS = (
    # One's own text.
    Edit(BODY, "def", SUM, **TWICE, compiled=()),
    Edit(BODY, "lambda", "unit = lambda s: s.sum()\n", **TWICE, compiled=()),
    Edit(
        BODY,
        "function inside the function",
        "def unit(s):\n    def inner(x):\n        return x.sum()\n"
        "    return inner(s)\n",
        "x.sum()",
        "x.sum() * 2",
        compiled=(),
    ),
    Edit(UNDER, "functools.wraps", "@decorate\n" + SUM, **TWICE, above=WRAPPER),
    Edit(
        UNDER,
        "without functools.wraps",
        "@decorate\n" + SUM,
        **TWICE,
        above=WRAPPER.replace("    @functools.wraps(f)\n", ""),
    ),
    # Helpers.
    Edit(HELPERS, "helper", CALLS_HELPER, **TWICE, above=HELPER, compiled=("h",)),
    Edit(
        HELPERS,
        "helper of a helper",
        CALLS_HELPER,
        **TWICE,
        above="def g(s):\n    return s.sum()\n\ndef h(s):\n    return g(s)\n",
        compiled=("g", "h"),
    ),
    Edit(
        HELPERS,
        "helper of a block",
        "def unit(s):\n    return h(s[None])[0]\n",
        "axis=1)",
        "axis=1) * 2",
        above="def h(s):\n    return s.sum(axis=1)\n",
        compiled=("h",),
    ),
    Edit(
        HELPERS,
        "np.vectorize of a function",
        "def unit(s):\n    return h(s).sum()\n",
        "x * 1",
        "x * 2",
        above="h = np.vectorize(lambda x: x * 1)\n",
    ),
    Edit(
        SIBLINGS,
        "from helpers import h",
        CALLS_HELPER,
        **TWICE,
        above="from helpers import h\n",
        files={"helpers.py": HELPER},
        compiled=("h",),
    ),
    Edit(
        SIBLINGS,
        "import helpers",
        "def unit(s):\n    return helpers.h(s)\n",
        **TWICE,
        above="import helpers\n",
        files={"helpers.py": HELPER},
        compiled=("h",),
    ),
    Edit(
        SIBLINGS,
        "import inside the function",
        "def unit(s):\n    from helpers import h\n    return h(s)\n",
        **TWICE,
        files={"helpers.py": HELPER},
    ),
    # Values.
    Edit(
        CONSTANTS,
        "number",
        "def unit(s):\n    return K * s.sum()\n",
        "K = 1",
        "K = 2",
        above="K = 1\n",
        compiled=(),
    ),
    Edit(
        CONSTANTS,
        "dict",
        "def unit(s):\n    return K['a'] * s.sum()\n",
        "'a': 1",
        "'a': 2",
        above="K = {'a': 1}\n",
    ),
    Edit(
        CONSTANTS,
        "array",
        "def unit(s):\n    return (K * s).sum()\n",
        "np.ones(4)",
        "np.full(4, 2.0)",
        above="K = np.ones(4)\n",
        compiled=(),
    ),
    Edit(
        CONSTANTS,
        "seed of a random generator",
        "def unit(s):\n    return X * 0 + K * s.sum()\n",
        "K = 1",
        "K = 2",
        above="K = 1\nX = np.random.default_rng(K).normal()\n",
        compiled=(),
    ),
    Edit(
        DEFAULTS,
        "number",
        "def unit(s, k=K):\n    return k * s.sum()\n",
        "K = 1",
        "K = 2",
        above="K = 1\n",
        compiled=(),
    ),
    Edit(
        DEFAULTS,
        "number, of a method",
        unit_class("k * s.sum()").replace("(self, s)", "(self, s, k=K)"),
        "K = 1",
        "K = 2",
        above="K = 1\n",
    ),
    Edit(
        DEFAULTS,
        "object",
        "def unit(s, k=Gain(K)):\n    return k.k * s.sum()\n",
        "K = 1",
        "K = 2",
        above=f"class Gain:\n{SETS_K}\nK = 1\n",
    ),
    Edit(
        CLOSURES,
        "number",
        "unit = make(1)\n",
        "make(1)",
        "make(2)",
        above="def make(k):\n    def f(s):\n        return k * s.sum()\n    return f\n",
        compiled=(),
    ),
    Edit(
        CLOSURES,
        "function",
        "unit = make(h)\n",
        **TWICE,
        above=HELPER
        + "\ndef make(g):\n    def f(s):\n        return g(s)\n    return f\n",
        compiled=("h",),
    ),
    Edit(
        PARTIALS,
        "positional argument",
        "unit = functools.partial(h, 1)\n",
        "(h, 1)",
        "(h, 2)",
        above="def h(k, s):\n    return k * s.sum()\n",
    ),
    Edit(
        PARTIALS,
        "function of a static method",
        "class Unit(Base):\n    unit_computation = staticmethod("
        "functools.partial(h, k=1))\n",
        **TWICE,
        above="def h(s, k):\n    return k * s.sum()\n",
    ),
    Edit(
        PARTIALS,
        "partialmethod",
        "class Unit(Base):\n    def h(self, s, k):\n        return k * s.sum()\n"
        "    unit_computation = functools.partialmethod(h, k=K)\n",
        "K = 1",
        "K = 2",
        above="K = 1\n",
    ),
    Edit(
        DECORATORS,
        "text",
        "@decorate\n" + SUM,
        "* 1",
        "* 2",
        above=WRAPPER,
    ),
    Edit(
        DECORATORS,
        "text, of a method",
        unit_class("s.sum()").replace("    def", "    @decorate\n    def"),
        "* 1",
        "* 2",
        above=WRAPPER,
    ),
    Edit(
        DECORATORS,
        "argument",
        "@scale(1)\n" + SUM,
        "@scale(1)",
        "@scale(2)",
        above=SCALE,
    ),
    Edit(
        DECORATORS,
        "argument, a constant, of a method",
        unit_class("s.sum()").replace("    def", "    @scale(K)\n    def"),
        "K = 1",
        "K = 2",
        above=SCALE + "\nK = 1\n",
    ),
    # Compiled and dispatched.
    Edit(
        COMPILED,
        "njit",
        CALLS_HELPER,
        **TWICE,
        above="import numba\n\n@numba.njit\n" + HELPER,
        compiled=(),
    ),
    Edit(
        COMPILED,
        "njit(cache=True)",
        CALLS_HELPER,
        **TWICE,
        above="import numba\n\n@numba.njit(cache=True)\n" + HELPER,
        compiled=(),
    ),
    Edit(
        COMPILED,
        "static method",
        unit_class(
            "self.h(s)",
            "    @staticmethod\n    @numba.njit\n    def h(s):\n"
            "        return s.sum()\n",
        ),
        **TWICE,
        above="import numba\n",
    ),
    Edit(
        DISPATCH,
        "dict",
        "def unit(s):\n    return F['a'](s)\n",
        **TWICE,
        above=HELPER + "\nF = {'a': h}\n",
    ),
    Edit(
        DISPATCH,
        "singledispatch",
        CALLS_HELPER,
        **TWICE,
        above="@functools.singledispatch\ndef h(s):\n    return 0\n\n"
        "@h.register\ndef of_array(s: np.ndarray):\n    return s.sum()\n",
    ),
    Edit(
        DISPATCH,
        "param.Selector",
        unit_class("self.k(s)", "    k = param.Selector(objects={'h': h})\n"),
        **TWICE,
        above=HELPER,
    ),
    # Objects.
    Edit(
        OBJECTS,
        "attribute of its class",
        "def unit(s):\n    return M.f(s)\n",
        "k = 1",
        "k = 2",
        above="class Model:\n    k = 1\n    def f(self, s):\n"
        "        return self.k * s.sum()\n\nM = Model()\n",
    ),
    Edit(
        OBJECTS,
        "state",
        "def unit(s):\n    return M.f(s)\n",
        "Model(1)",
        "Model(2)",
        above=f"class Model:\n{SETS_K}    def f(self, s):\n"
        "        return self.k * s.sum()\n\nM = Model(1)\n",
    ),
    Edit(
        METHODS,
        "bound method",
        "unit = Model(1).f\n",
        "Model(1)",
        "Model(2)",
        above=f"class Model:\n{SETS_K}    def f(self, s):\n"
        "        return self.k * s.sum()\n",
    ),
    Edit(
        METHODS,
        "callable object",
        "unit = Model(1)\n",
        "Model(1)",
        "Model(2)",
        above=f"class Model:\n{SETS_K}    def __call__(self, s):\n"
        "        return self.k * s.sum()\n",
    ),
    # Functions of libraries.
    Edit(LIBRARY, "np.max", "unit = np.max\n", "np.max", "np.min", first=7, right=4),
    Edit(
        LIBRARY,
        "np.linalg.norm",
        "unit = np.linalg.norm\n",
        "np.linalg.norm",
        "np.median",
        first=126**0.5,
        right=5.5,
    ),
    Edit(
        LIBRARY,
        "np.add.reduce",
        "unit = np.add.reduce\n",
        "np.add.reduce",
        "np.maximum.reduce",
        right=7,
    ),
    # A version that the user declares.
    Edit(
        VERSIONED,
        "partial",
        "unit = functools.partial(h, k=1)\n",
        "k=1",
        "k=2",
        above="def h(s, k):\n    return k * s.sum()\n",
        version=True,
    ),
    Edit(
        VERSIONED,
        "partial, positional",
        "unit = functools.partial(h, 1)\n",
        "(h, 1)",
        "(h, 2)",
        above="def h(k, s):\n    return k * s.sum()\n",
        version=True,
    ),
    Edit(
        VERSIONED,
        "callable object",
        "unit = Model(1)\n",
        "Model(1)",
        "Model(2)",
        above=f"class Model:\n{SETS_K}    def __call__(self, s):\n"
        "        return self.k * s.sum()\n",
        version=True,
    ),
    Edit(
        VERSIONED,
        "math.fsum",
        "unit = math.fsum\n",
        "math.fsum",
        "math.prod",
        right=840,
        version=True,
    ),
    # What is outside of the code.
    Edit(
        ENVIRONMENT,
        "read at import",
        "def unit(s):\n    return K * s.sum()\n",
        "",
        "",
        above="K = float(os.environ['GAIN'])\n",
        variable=("1", "2"),
        compiled=(),
    ),
    Edit(
        ENVIRONMENT,
        "read in the function",
        "def unit(s):\n    return float(os.environ['GAIN']) * s.sum()\n",
        "",
        "",
        variable=("1", "2"),
    ),
)
"""Edits that change the result; ``edit_classes.py`` has more."""

_TWO = {
    "unit": "def unit(s):\n    total = h(s)\n    return total\n",
    "above": "import glob\nimport string\n\n# Place.\n\n" + HELPER + "\n"
    "def unused(s):\n    return s.min()\n",
    "compiled": ("h",),
    "right": 22,
}


def _harmless(name: str, old: str, new: str) -> Edit:
    return Edit(HARMLESS, name, old=old, new=new, **_TWO)  # type: ignore[arg-type]


HARMLESS_EDITS = (
    _harmless("comment in the function", "    total", "    # Add.\n    total"),
    _harmless("comment in the helper", "    return s.", "    # Add.\n    return s."),
    _harmless("docstring of the function", "    total", '    """Add."""\n    total'),
    _harmless(
        "docstring of the helper",
        "    return s.sum",
        '    """Add."""\n    return s.sum',
    ),
    _harmless("layout of the function", "total = h(s)", "total = h(\n        s\n    )"),
    _harmless(
        "layout of the helper", "return s.sum()", "return (\n        s.sum()\n    )"
    ),
    _harmless("annotations", "def unit(s):", "def unit(s: object) -> float:"),
    _harmless("lines above: the functions move", "# Place.\n", "# Place.\n" * 9),
    _harmless("a function that is not used", "s.min()", "s.max()"),
    _harmless(
        "order of imports", "import glob\nimport string", "import string\nimport glob"
    ),
)
"""Edits that change nothing."""
