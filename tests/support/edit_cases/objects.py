"""Edits of further classes, and of objects made of them."""

from edits import edit, script, unit

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

OBJECTS = {
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
