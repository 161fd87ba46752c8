"""Edits that change no result: none may begin a new run."""

from edits import edit, mapped, process, script, unit

PLAIN = """
class Weights:
    def __init__(self, first):
        self.first = first

    def of(self, s):
        return self.first * s


KINDS = {"sum": np.sum, "first": lambda s: s[0]}


def total(s, k=1, *, how="sum"):
    if k == 1 and how in KINDS:
        return KINDS[how](Weights(k).of(s))
    return [x for x in s if x > 0][0]


class P(rs.Process):
    outputs = {"m": rs.Output()}

    def unit_computation(self, s):
        return total(s)
"""
#: The same, as ruff and black would give it to an author who writes otherwise.
FORMATTED = '''
class Weights :
    """Weights."""

    def __init__( self, first, ) :
        self.first = first
    def of( self, s ) :
        """Weigh."""
        return (
            self.first
            * s
        )
KINDS = {
    'sum': np.sum,
    'first': (
        lambda s: s[0]
    ),
}
def total( s, k = 1, *, how = 'sum' ) :  # a total
    # Where it is one.
    if (k == 1
            and how in KINDS) :
        return KINDS[ how ]( Weights( k ).of( s ) )
    return [
        x
        for x in s
        if x > 0
    ][ 0 ]
class P( rs.Process, ) :
    """Totals."""
    outputs = { 'm' : rs.Output() }
    def unit_computation( self, s ) :
        r"""Do one."""
        return ( total( s ) )
'''

IN_TEXT = {
    "layout": edit(script(PLAIN), PLAIN.strip(), FORMATTED.strip(), 22),
    "comment": edit(
        unit("h(s)", "def h(s): return s.sum()"), "s.sum()", "s.sum()  # x", 22
    ),
    "docstring of a helper": edit(
        unit("h(s)", "def h(s):\n    'One.'\n    return s.sum()"), "One.", "Two.", 22
    ),
    "docstring taken away": edit(
        unit("h(s)", "def h(s):\n    'One.'\n    return s.sum()"),
        "    'One.'\n",
        "",
        22,
    ),
    "docstring of the class": edit(
        script(
            """
            class P(rs.Process):
                '''One.'''
                outputs = {"m": rs.Output()}
                def unit_computation(self, s):
                    return s.sum()
            """
        ),
        "One.",
        "Two.",
        22,
    ),
    "docstring of a helper class": edit(
        unit("C().k * s.sum()", "class C:\n    'One.'\n    k = 1"), "One.", "Two.", 22
    ),
    "docstring of a module": edit(
        {
            "run.py": unit("hh.h(s)", "import hh"),
            "hh.py": "'One.'\ndef h(s): return s.sum()\n",
        },
        "One.",
        "Two.",
        22,
        file="hh.py",
    ),
    "annotation": edit(
        unit("h(s)", "def h(s): return s.sum()"),
        "def h(s):",
        "def h(s: np.ndarray) -> float:",
        22,
    ),
    "annotation of a variable": edit(
        unit("h(s)", "def h(s):\n    total = s.sum()\n    return total"),
        "total = s",
        "total: float = s",
        22,
    ),
    "annotation of a class attribute": edit(
        unit("C.k * s.sum()", "class C:\n    k = 1"), "k = 1", "k: int = 1", 22
    ),
    "annotation of a constant": edit(
        unit("K * s.sum()", "K = 1"), "K = 1", "K: typing.Final = 1", 22
    ),
    "moved lines": edit(
        unit("h(s)", "def h(s): return s.sum()"), "def h(s)", "\n\n\ndef h(s)", 22
    ),
    "order of definitions": edit(
        unit(
            "h(s)",
            """
            def g(s): return s.sum()
            def h(s): return g(s)
            """,
        ),
        "def g(s): return s.sum()\ndef h(s): return g(s)\n",
        "def h(s): return g(s)\ndef g(s): return s.sum()\n",
        22,
    ),
    "order of methods": edit(
        process(
            """
            def g(self, s): return s.sum()
            def unit_computation(self, s): return self.g(s)
            """
        ),
        """    def g(self, s): return s.sum()
    def unit_computation(self, s): return self.g(s)
""",
        """    def unit_computation(self, s): return self.g(s)
    def g(self, s): return s.sum()
""",
        22,
    ),
    "order of imports": edit(
        unit("h(s)", "import math as m\nimport json as j\ndef h(s): return m.fsum(s)"),
        "import math as m\nimport json as j",
        "import json as j\nimport math as m",
        22,
    ),
    "unused import": edit(
        unit("h(s)", "def h(s): return s.sum()"), "def h", "import csv\ndef h", 22
    ),
    "new function that is not used": edit(
        unit("h(s)", "def h(s): return s.sum()"), "def h", "def g(): pass\ndef h", 22
    ),
    "function that is not used": edit(
        unit("h(s)", "def g(): return 1\ndef h(s): return s.sum()"),
        "return 1",
        "return 2",
        22,
    ),
    "function that is not used, of a module": edit(
        {
            "run.py": unit("hh.h(s)", "import hh"),
            "hh.py": "def g(): return 1\ndef h(s): return s.sum()\n",
        },
        "return 1",
        "return 2",
        22,
        file="hh.py",
    ),
    "function that is not used, of a module imported in a method": edit(
        {
            "run.py": process(
                "def unit_computation(self, s):\n    import hh\n    return hh.h(s)"
            ),
            "hh.py": "def g(): return 1\ndef h(s): return s.sum()\n",
        },
        "return 1",
        "return 2",
        22,
        file="hh.py",
    ),
    "method that is not used": edit(
        unit("s.sum()", members="def g(self): return 1\n"), "return 1", "return 2", 22
    ),
    "constant that is not used": edit(unit("s.sum()", "K = 1"), "K = 1", "K = 2", 22),
    "constant hidden by a local name": edit(
        process(
            "def unit_computation(self, s):\n    k = 1\n    return k * s.sum()",
            "k = 1 + 1",
        ),
        "k = 1 + 1",
        "k = 1 + 2",
        22,
    ),
    "constant hidden by an argument": edit(
        unit("h(s, 1)", "k = 1 + 1\ndef h(s, k): return k * s.sum()"),
        "k = 1 + 1",
        "k = 1 + 2",
        22,
    ),
    "attribute that is not read": edit(
        unit("s.sum()").replace(
            'return P("scan.h5::/data").',
            'p = P("scan.h5::/data"); p.owner = 1\n    return p.',
        ),
        "owner = 1",
        "owner = 2",
        22,
    ),
    "the same number written otherwise": edit(
        unit("K * h(s)", "K = 1000.0\ndef h(s): return s.sum() / 1000"),
        "K = 1000.0",
        "K = 1e3",
        22,
    ),
    "the same text written otherwise": edit(
        unit("len('äb') * s.sum() / 2"), "'äb'", '"\\u00e4" "b"', 22
    ),
    "brackets": edit(unit("1 * s.sum()"), "1 * s.sum()", "(1 * (s.sum()))", 22),
    "statement that does nothing": edit(
        unit("h(s)", "def h(s):\n    return s.sum()"),
        "h(s):\n",
        "h(s):\n    'Why.'\n",
        22,
    ),
    "two lambdas on one line, the other one": edit(
        unit("h(s)", "g, h = lambda s: 1, lambda s: s.sum()"), "s: 1", "s: 2", 22
    ),
    "f-string in other quotes": edit(
        unit("len(f'{1}') * s.sum()"), "f'{1}'", 'f"{1}"', 22
    ),
    "units": edit(unit("s.sum()"), "rs.Output()", 'rs.Output(units="V")', 22),
    "text of a parameter": edit(
        unit("self.k * s.sum()", members="k = param.Number(1, doc='One.', label='k')"),
        "doc='One.', label='k'",
        "doc='Two.', label='K'",
        22,
    ),
    "bounds of a parameter": edit(
        unit("self.k * s.sum()", members="k = param.Number(1, bounds=(0, 5))"),
        "bounds=(0, 5)",
        "bounds=(0, 9)",
        22,
    ),
    "draw": edit(
        unit(
            "s.sum()",
            members="def draw(self, axes, position, spectrum, outputs): return 1\n",
        ),
        "return 1",
        "return 2",
        22,
    ),
    "options of compute": edit(
        unit("s.sum()"), 'engine="serial"', 'engine="serial", checkpoint=7', 22
    ),
    "test before it": edit(
        unit(
            "h(s)", "CALLS = []\ndef h(s):\n    CALLS.append(1)\n    return s.sum()"
        ).replace(
            'return P("scan.h5::/data").',
            'p = P("scan.h5::/data")  # tested\n    return p.',
        ),
        "  # tested",
        "; p.test(0)",
        22,
    ),
    "helper called before it": edit(
        unit(
            "h(1) * s.sum()",
            "CACHE = {}\ndef h(x):\n    CACHE.setdefault(x, x)\n    return CACHE[x]",
        ),
        "return CACHE[x]\n",
        "return CACHE[x]\nif sys.argv:\n    h(5)\n",
        22,
    ),
    "cached helper called before it": edit(
        unit("h(1) * s.sum()", "@functools.cache\ndef h(x): return x\npass"),
        "\npass",
        "\nh(5)",
        22,
    ),
    "cached property read before it": edit(
        unit(
            "self.k * s.sum()",
            members="@functools.cached_property\ndef k(self): return 1\n",
        ).replace(
            'return P("scan.h5::/data").',
            'p = P("scan.h5::/data")  # read\n    return p.',
        ),
        "  # read",
        "; p.k",
        22,
    ),
    "njit called before it": edit(
        unit("h(s)", "import numba\n@numba.njit\ndef h(s): return s.sum()\npass"),
        "\npass",
        "\nh(np.ones(3))",
        22,
    ),
    "run twice in a process": edit(
        unit("s.sum()").replace(
            "    results = compute()\n", "    results = compute()  # once\n"
        ),
        "  # once",
        "; results = compute()",
        22,
    ),
    "logging": edit(
        unit(
            "h(s)",
            "import logging\nlog = logging.getLogger('a')\n"
            "def h(s):\n    log.debug('x')\n    return s.sum()\npass",
        ),
        "\npass",
        "\nlog.setLevel(50)",
        22,
    ),
    "environment variable that is not read": edit(
        unit("s.sum()"), "", "", 22, environment=({}, {"SOME": "1"})
    ),
    "file of the same contents": edit(
        {
            "run.py": unit(
                "self.k * s.sum()",
                members="def setup(self): self.k = float(open('k.txt').read())",
            ),
            "k.txt": "1",
        },
        "1",
        "1",
        22,
        file="k.txt",
    ),
}

IN_MAPS = {
    "comment": edit(mapped("def f(s): return s.sum()"), "s.sum()", "s.sum()  # x", 22),
    "docstring": edit(
        mapped("def f(s):\n    'One.'\n    return s.sum()"), "One.", "Two.", 22
    ),
    "function that is not used": edit(
        mapped("def g(): return 1\ndef f(s): return s.sum()"),
        "return 1",
        "return 2",
        22,
    ),
    "annotation": edit(
        mapped("def f(s): return s.sum()"), "f(s)", "f(s: np.ndarray)", 22
    ),
}

HARMLESS = {"text": IN_TEXT, "map text": IN_MAPS}
