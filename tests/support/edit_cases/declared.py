"""Edits of files, modules and declarations that are read in unusual ways."""

from edits import edit, script

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

DECLARED = {
    "environ name const": edit(
        script("""
            N='WEIGHT'
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return float(os.environ[N])*s.sum()
            """),
        "",
        "",
        environment=({"WEIGHT": "1"}, {"WEIGHT": "2"}),
    ),
    "Path('k').read_text": edit(
        {
            "run.py": script("""
            from pathlib import Path
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def setup(self): self.k=float(Path('k.txt').read_text())
                def unit_computation(self, s):
                    return self.k*s.sum()
            """),
            "k.txt": "1",
        },
        "1",
        "2",
        file="k.txt",
    ),
    "np.loadtxt(fname=)": edit(
        {
            "run.py": script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def setup(self): self.k=float(np.loadtxt(fname='k.txt'))
                def unit_computation(self, s):
                    return self.k*s.sum()
            """),
            "k.txt": "1",
        },
        "1",
        "2",
        file="k.txt",
    ),
    "module __init__ const via from . import": edit(
        {
            "run.py": script("""
            import pack.a
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return pack.a.f(s)
            """),
            "pack/__init__.py": "K=1\n",
            "pack/a.py": "from . import K\ndef f(s): return K*s.sum()\n",
        },
        "K=1",
        "K=2",
        file="pack/__init__.py",
    ),
    "in-func import dotted": edit(
        {
            "run.py": script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self,s):
                    import pack.a
                    return pack.a.f(s)
            """),
            "pack/__init__.py": "",
            "pack/a.py": "def f(s): return s.sum()\n",
        },
        "s.sum()",
        "2 * s.sum()",
        file="pack/a.py",
    ),
    "in-func from pack import mod": edit(
        {
            "run.py": script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self,s):
                    from pack import a
                    return a.f(s)
            """),
            "pack/__init__.py": "",
            "pack/a.py": "from .b import g\ndef f(s): return g(s)\n",
            "pack/b.py": "def g(s): return s.sum()\n",
        },
        "s.sum()",
        "2 * s.sum()",
        file="pack/b.py",
    ),
    "in-func import star-like alias": edit(
        {
            "run.py": script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self,s):
                    import hh
                    f=hh.h
                    return f(s)
            """),
            "hh.py": "def h(s): return s.sum()\n",
        },
        "s.sum()",
        "2 * s.sum()",
        file="hh.py",
    ),
    "lib callback with user func in library obj": edit(
        script("""
            class W:
                pass
            F=functools.partial(np.apply_along_axis,lambda v: v.sum(),0)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return F(s)
            """),
        "v.sum()",
        "2 * v.sum()",
    ),
    "class var via mixin mro replaced": edit(
        script("""
            class A:
                def f(self,s): return 1
            class B:
                def f(self,s): return 2*s.sum()
            class P(A, B, rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return self.f(s)
            """),
        "A, B",
        "B, A",
    ),
    "self.__dict__ access": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def __init__(self,*a,**b):
                    super().__init__(*a,**b)
                    self.k=1
                def unit_computation(self, s):
                    return self.__dict__['k']*s.sum()
            """),
        "self.k=1",
        "self.k=2",
    ),
    "dunder len/bool of obj": edit(
        script("""
            class C:
                def __len__(self): return 1
            O=C()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return len(O)*s.sum()
            """),
        "return 1",
        "return 2",
    ),
    "__format__/__str__": edit(
        script("""
            class C:
                def __str__(self): return '1'
            O=C()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return float(str(O))*s.sum()
            """),
        "'1'",
        "'2'",
    ),
    "param subobject": edit(
        script("""
            class C(param.Parameterized):
                k=param.Number(1)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                c=param.Parameter(C())
                def unit_computation(self, s):
                    return self.c.k*s.sum()
            """),
        "Number(1)",
        "Number(2)",
    ),
    "param subobject method": edit(
        script("""
            class C(param.Parameterized):
                def f(self,s): return s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                c=param.Parameter(C())
                def unit_computation(self, s):
                    return self.c.f(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "param Parameterized global": edit(
        script("""
            class C(param.Parameterized):
                k=param.Number(1)
            O=C()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return O.k*s.sum()
            """),
        "Number(1)",
        "Number(2)",
    ),
    "param class attr global": edit(
        script("""
            class C(param.Parameterized):
                k=param.Number(1)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return C.k*s.sum()
            """),
        "Number(1)",
        "Number(2)",
    ),
    "param made in computation": edit(
        script("""
            class C(param.Parameterized):
                k=param.Number(1)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return C().k*s.sum()
            """),
        "Number(1)",
        "Number(2)",
    ),
    "inherit param default override": edit(
        script("""
            class B(rs.Process):
                k=param.Number(5)
                outputs={'m':rs.Output()}
                def unit_computation(self,s): return self.k*s.sum()
            class P(B):
                k=1
            """),
        "    k=1",
        "    k=2",
    ),
    "dataclass slots": edit(
        script("""
            @dataclasses.dataclass(slots=True)
            class C:
                k: int = 1
            O=C()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return O.k*s.sum()
            """),
        "int = 1",
        "int = 2",
    ),
    "dataclass inherit": edit(
        script("""
            @dataclasses.dataclass
            class C:
                k: int = 1
            @dataclasses.dataclass
            class D(C):
                j: int = 1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return D().k*s.sum()
            """),
        "k: int = 1",
        "k: int = 2",
    ),
    "dataclass eq option": edit(
        script("""
            @dataclasses.dataclass(eq=True)
            class C:
                j: int
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return (1 if C(1)==C(1) else 2)*s.sum()
            """),
        "eq=True",
        "eq=False",
    ),
    "dataclass order": edit(
        script("""
            @dataclasses.dataclass(repr=True)
            class C:
                j: int
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return (1 if repr(C(1)).startswith('C') else 2)*s.sum()
            """),
        "repr=True",
        "repr=False",
    ),
    "pickled class callable arg": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                f=param.Callable(functools.partial(lambda k,s:k*s.sum(),1))
                def unit_computation(self, s):
                    return self.f(s)
            """),
        ",1))",
        ",2))",
    ),
    "numexpr-like text fn": edit(
        script("""
            h=eval('lambda s: s.sum()')
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "exec in class body": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                exec('def g(self,s): return s.sum()')
                def unit_computation(self, s):
                    return self.g(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "type() helper class": edit(
        script("""
            C=type('C',(),{'f':lambda self,s: s.sum()})
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return C().f(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "types.MethodType on instance": edit(
        script("""
            class C: pass
            O=C()
            O.f=types.MethodType(lambda self,s: s.sum(),O)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return O.f(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "with constant": edit(
        script("""
            with contextlib.suppress(ValueError):
                K=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return K*s.sum()
            """),
        "K=1",
        "K=2",
    ),
    "negative zero in tuple": edit(
        script("""
            K=(0.0,)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return np.copysign(1,K[0])*s.sum()
            """),
        "(0.0,)",
        "(-0.0,)",
        -22,
    ),
    "bool vs int": edit(
        script("""
            K=True
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return (1 if K is True else 2)*s.sum()
            """),
        "K=True",
        "K=1",
    ),
    "str key vs int key": edit(
        script("""
            K={1:1}
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return (1 if 1 in K else 2)*s.sum()
            """),
        "{1:1}",
        "{'1':1}",
    ),
}
