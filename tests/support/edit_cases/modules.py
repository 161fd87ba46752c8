"""Edits of modules and packages beside the script."""

from edits import edit, process, script, unit

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

MODULES = {
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
    "class by exec, without the name of a module": edit(
        script(
            """
            namespace = {"rs": rs}
            exec('class P(rs.Process):\\n'
                 ' outputs = {"m": rs.Output()}\\n'
                 ' def unit_computation(self, s): return s.sum()', namespace)
            P = namespace["P"]
            """
        ),
        *TWICE,
    ),
    "class by types.new_class": edit(
        script(
            """
            def unit(self, s): return s.sum()
            def fill(space):
                space.update(outputs={"m": rs.Output()}, unit_computation=unit)
            P = types.new_class("P", (rs.Process,), {}, fill)
            """
        ),
        *TWICE,
    ),
    "class by abc.ABCMeta": edit(
        unit("M.g(s)", "M = abc.ABCMeta('M', (), {'g': lambda self, s: s.sum()})()"),
        *TWICE,
    ),
}
