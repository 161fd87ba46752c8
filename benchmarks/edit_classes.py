"""Edits of scripts in which a class computes, in the form of ``edit_cases.py``."""

from __future__ import annotations

from edit_cases import TWICE, Edit, unit_class

CLASSES = "a class"
BASES = "a base class in another file"
MADE = "a class made at run time"
PARAMETERS = "the default of a parameter"
INSTANCE = "an attribute set on the object"
DATA = "a docstring that the code reads"
FILES = "a file that the code reads"

EDITS = (
    Edit(CLASSES, "method", unit_class("s.sum()"), **TWICE),
    Edit(
        CLASSES,
        "function inside the method",
        unit_class("inner(s)").replace(
            "        return",
            "        def inner(x):\n            return x.sum()\n        return",
        ),
        "x.sum()",
        "x.sum() * 2",
    ),
    Edit(
        CLASSES,
        "class attribute",
        unit_class("self.k * s.sum()", "    k = 1\n"),
        "k = 1",
        "k = 2",
    ),
    Edit(
        CLASSES,
        "static method",
        unit_class("s.sum()")
        .replace("(self, s)", "(s)")
        .replace("    def", "    @staticmethod\n    def"),
        **TWICE,
    ),
    Edit(
        CLASSES,
        "class in a function",
        "def make():\n    class Unit(Base):\n        def unit_computation(self, s):\n"
        "            return s.sum()\n    return Unit\n\nUnit = make()\n",
        **TWICE,
    ),
    Edit(
        BASES,
        "base class",
        "class Unit(Parent):\n    pass\n",
        **TWICE,
        above="from parent import Parent\n",
        files={"parent.py": unit_class("s.sum()").replace("Unit", "Parent")},
    ),
    Edit(
        BASES,
        "mixin",
        "class Unit(Mixin, Base):\n    def unit_computation(self, s):\n"
        "        return self.f(s)\n",
        **TWICE,
        above="from parent import Mixin\n",
        files={
            "parent.py": "class Mixin:\n    def f(self, s):\n        return s.sum()\n"
        },
    ),
    Edit(
        MADE,
        "function as method",
        "class Unit(Base):\n    unit_computation = f\n",
        **TWICE,
        above="def f(self, s):\n    return s.sum()\n",
    ),
    Edit(
        MADE,
        "function as static method",
        "class Unit(Base):\n    unit_computation = staticmethod(f)\n",
        **TWICE,
        above="def f(s):\n    return s.sum()\n",
    ),
    Edit(
        MADE,
        "lambda as method",
        "class Unit(Base):\n    unit_computation = lambda self, s: s.sum()\n",
        **TWICE,
    ),
    Edit(
        MADE,
        "method replaced",
        unit_class("s.sum()") + "\ndef f(self, s):\n    return s.sum() * 1\n\n"
        "Unit.unit_computation = f\n",
        "* 1",
        "* 2",
    ),
    Edit(
        MADE,
        "type()",
        "class Plain(Base):\n    pass\n\n"
        "Unit = type('Unit', (Plain,), {'unit_computation': f})\n",
        **TWICE,
        above="def f(self, s):\n    return s.sum()\n",
    ),
    Edit(
        MADE,
        "exec",
        f"names = dict(globals())\nexec('''\n{unit_class('s.sum()')}''', names)\n"
        "Unit = names['Unit']\n",
        **TWICE,
    ),
    Edit(
        MADE,
        "__init_subclass__",
        unit_class("self.k * s.sum()").replace("(Base)", "(Parent, k=1)"),
        "k=1)",
        "k=2)",
        above="class Parent(Base):\n    def __init_subclass__(cls, k, **others):\n"
        "        super().__init_subclass__(**others)\n        cls.k = k\n",
    ),
    Edit(
        MADE,
        "class decorator",
        "@inject(K)\n" + unit_class("self.k * s.sum()"),
        "K = 1",
        "K = 2",
        above="def inject(k):\n    def decorate(cls):\n        cls.k = k\n"
        "        return cls\n    return decorate\n\nK = 1\n",
    ),
    Edit(
        PARAMETERS,
        "number",
        unit_class("self.k * s.sum()", "    k = param.Number(1)\n"),
        "Number(1)",
        "Number(2)",
    ),
    Edit(
        PARAMETERS,
        "constant of the file",
        unit_class("self.k * s.sum()", "    k = param.Number(K)\n"),
        "K = 1",
        "K = 2",
        above="K = 1\n",
    ),
    Edit(
        INSTANCE,
        "from outside",
        unit_class("self.k * s.sum()").replace("Unit", "Plain")
        + "\ndef Unit(*source):\n    made = Plain(*source)\n    made.k = 1\n"
        "    return made\n",
        "made.k = 1",
        "made.k = 2",
    ),
    Edit(
        INSTANCE,
        "in __init__",
        unit_class(
            "self.k * s.sum()",
            "    def __init__(self, *source, k=1, **others):\n"
            "        super().__init__(*source, **others)\n        self.k = k\n",
        ).replace("Unit", "Plain")
        + "\ndef Unit(*source):\n    return Plain(*source, k=1)\n",
        "source, k=1)",
        "source, k=2)",
    ),
    Edit(
        DATA,
        "docstring",
        unit_class("float(self.__doc__) * s.sum()", "    '''1'''\n"),
        "'''1'''",
        "'''2'''",
    ),
    Edit(
        FILES,
        "JSON in setup",
        unit_class(
            "self.k * s.sum()",
            "    def setup(self):\n"
            "        self.k = json.load(open('gain.json'))['k']\n",
        ),
        '"k": 1',
        '"k": 2',
        files={"gain.json": '{"k": 1}'},
    ),
    Edit(
        FILES,
        "text in setup",
        unit_class(
            "self.k * s.sum()",
            "    def setup(self):\n        self.k = float(open('gain.txt').read())\n",
        ),
        "1.0",
        "2.0",
        files={"gain.txt": "1.0"},
    ),
    Edit(
        FILES,
        "file named by a parameter",
        unit_class(
            "self.k * s.sum()",
            "    path = param.Path('gain.json')\n    def setup(self):\n"
            "        self.k = json.load(open(self.path))['k']\n",
        ),
        '"k": 1',
        '"k": 2',
        files={"gain.json": '{"k": 1}'},
    ),
)
"""Edits that change the result."""
