"""Edits of constants."""

from edits import edit, unit

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

CONSTANTS = {
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
