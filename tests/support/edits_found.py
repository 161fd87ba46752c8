"""Further edits that change results, found by trying what could be missed."""

from edits import edit, script

FOUND = {
    "super().__init__ of helper": edit(
        script("""
            class A:
                def __init__(self,k): self.k=1*k
            class B(A):
                def __init__(self,k): super().__init__(k)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return B(1).k*s.sum()
            """),
        "1*k",
        "2*k",
    ),
    "global set in setup": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def setup(self):
                    global K
                    K=1
                def unit_computation(self,s): return K*s.sum()
            """),
        "K=1",
        "K=2",
    ),
    "module attr set by setup": edit(
        {
            "run.py": script("""
            import hh
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def setup(self):
                    hh.K=1
                def unit_computation(self,s): return hh.h(s)
            """),
            "hh.py": "K=5\ndef h(s): return K*s.sum()\n",
        },
        "hh.K=1",
        "hh.K=2",
    ),
    "list filled by helper arg": edit(
        script("""
            T=[1]
            def h(t,s):
                t.append(0)
                return t[0]*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(T,s)
            """),
        "[1]",
        "[2]",
    ),
    "dict of objects with functions": edit(
        script("""
            class C:
                def __init__(self,f): self.f=f
            T={'a':C(lambda s: s.sum())}
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return T['a'].f(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "methodcaller": edit(
        script("""
            class C:
                def f(self,s): return s.sum()
            M=C()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return operator.methodcaller('f',s)(M)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "self methodcaller": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def f(self,s): return s.sum()
                def unit_computation(self, s):
                    return operator.methodcaller('f',s)(self)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "attrgetter self dotted": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                a=types.SimpleNamespace(k=1)
                def unit_computation(self, s):
                    return operator.attrgetter('a.k')(self)*s.sum()
            """),
        "k=1",
        "k=2",
    ),
    "getattr f-string on module": edit(
        {
            "run.py": script("""
            import hh
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return getattr(hh,f'h{1}')(s)
            """),
            "hh.py": "def h1(s): return s.sum()\n",
        },
        "s.sum()",
        "2 * s.sum()",
        file="hh.py",
    ),
    "names in list, getattr on class": edit(
        script("""
            class C:
                @staticmethod
                def a_b(s): return s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return sum(getattr(C,n)(s) for n in ['a_b'])
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "sys.modules lookup": edit(
        {
            "run.py": script("""
            import hh
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return sys.modules['hh'].h(s)
            """),
            "hh.py": "def h(s): return s.sum()\n",
        },
        "s.sum()",
        "2 * s.sum()",
        file="hh.py",
    ),
    "class instance creates via type(self)": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                @staticmethod
                def g(s): return s.sum()
                def unit_computation(self, s):
                    return type(self).g(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "__class__ cell": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                K=1
                def unit_computation(self, s):
                    return __class__.K*s.sum()
            """),
        "K=1",
        "K=2",
    ),
    "descriptor __set_name__": edit(
        script("""
            class D:
                def __set_name__(self,o,n): self.v=1
                def __get__(self,i,o): return self.v
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                k=D()
                def unit_computation(self, s):
                    return self.k*s.sum()
            """),
        "self.v=1",
        "self.v=2",
    ),
    "__slots__ obj in closure": edit(
        script("""
            class D:
                __slots__=('k',)
            def mk():
                d=D(); d.k=1
                return lambda s: d.k*s.sum()
            h=mk()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "d.k=1",
        "d.k=2",
    ),
    "mappingproxy": edit(
        script("""
            M=types.MappingProxyType({'a':1})
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M['a']*s.sum()
            """),
        "'a':1",
        "'a':2",
    ),
    "ChainMap/defaultdict": edit(
        script("""
            import collections
            M=collections.defaultdict(lambda: 1)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M['q']*s.sum()
            """),
        "lambda: 1",
        "lambda: 2",
    ),
    "Counter": edit(
        script("""
            import collections
            M=collections.Counter('a')
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M['a']*s.sum()
            """),
        "Counter('a')",
        "Counter('aa')",
    ),
    "namedtuple func": edit(
        script("""
            import collections
            M=collections.namedtuple('N','a b')(1,2)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M.a*s.sum()
            """),
        "(1,2)",
        "(2,2)",
    ),
    "namedtuple defaults": edit(
        script("""
            import collections
            N=collections.namedtuple('N','a',defaults=[1])
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return N().a*s.sum()
            """),
        "[1]",
        "[2]",
    ),
    "re pattern": edit(
        script("""
            import re
            R=re.compile('b')
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return len(R.findall('aab'))*s.sum()/1
            """),
        "'b')\n",
        "'a')\n",
    ),
    "bytearray": edit(
        script("""
            B=bytearray([1])
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return B[0]*s.sum()
            """),
        "[1]",
        "[2]",
    ),
    "structured array": edit(
        script("""
            B=np.array([(1,2)],[('a','i4'),('b','i4')])
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return B['a'][0]*s.sum()
            """),
        "(1,2)",
        "(2,2)",
    ),
    "array view strided": edit(
        script("""
            B=np.arange(6)[1::2]
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return B[0]*s.sum()
            """),
        "[1::2]",
        "[2::2]",
    ),
    "user array in dict in object": edit(
        script("""
            class O: pass
            O=O(); O.d={'w':np.array([1])}
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return O.d['w'][0]*s.sum()
            """),
        "[1])",
        "[2])",
    ),
    "poly1d": edit(
        script("""
            B=np.poly1d([1,1])
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return B(0)*s.sum()
            """),
        "[1,1]",
        "[1,2]",
    ),
    "signal filter tuple": edit(
        script("""
            B=(np.array([1.]),np.array([1.]))
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return B[0][0]*s.sum()
            """),
        "(np.array([1.])",
        "(np.array([2.])",
    ),
    "interp1d": edit(
        script("""
            from scipy.interpolate import interp1d
            B=interp1d([0,1],[1,1])
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return float(B(0.))*s.sum()
            """),
        "[1,1]",
        "[2,1]",
    ),
    "partialmethod in helper class": edit(
        script("""
            class C:
                def f(self,s,k): return k*s.sum()
                g=functools.partialmethod(f,k=1)
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return C().g(s)
            """),
        "k=1",
        "k=2",
    ),
    "singledispatchmethod": edit(
        script("""
            class C:
                @functools.singledispatchmethod
                def f(self,s): return 0
                @f.register
                def _(self,s: np.ndarray): return s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return C().f(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "singledispatchmethod own": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                @functools.singledispatchmethod
                def f(self,s): return 0
                @f.register
                def _(self,s: np.ndarray): return s.sum()
                def unit_computation(self, s):
                    return self.f(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "lru method": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                @functools.lru_cache
                def f(self,s): return 1*s
                def unit_computation(self, s):
                    return self.f(1.)*s.sum()
            """),
        "1*s\n",
        "2*s\n",
    ),
    "total_ordering": edit(
        script("""
            @functools.total_ordering
            class C:
                def __init__(self,v): self.v=v
                def __lt__(self,o): return self.v<o.v
                def __eq__(self,o): return self.v==o.v
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return (2 if C(1)>=C(2) else 1)*s.sum()
            """),
        "self.v<o.v",
        "self.v>o.v",
    ),
    "typing generic": edit(
        script("""
            X=typing.TypeVar('X')
            class C(typing.Generic[X]):
                k=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return C().k*s.sum()
            """),
        "k=1",
        "k=2",
    ),
    "Protocol": edit(
        script("""
            class A(typing.Protocol):
                def f(self,s): return s.sum()
            class C(A): pass
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return C().f(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "enum via func": edit(
        script("""
            E=enum.Enum('E',{'A':1})
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return E.A.value*s.sum()
            """),
        "'A':1",
        "'A':2",
    ),
    "string method on self via format": edit(
        script("""
            class C: k=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return float('{0.k}'.format(C))*s.sum()
            """),
        "k=1",
        "k=2",
    ),
    "async helper": edit(
        script("""
            import asyncio
            async def h(s): return s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return asyncio.run(h(s))
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "class with __new__": edit(
        script("""
            class C:
                def __new__(cls):
                    o=super().__new__(cls); o.k=1
                    return o
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return C().k*s.sum()
            """),
        "o.k=1",
        "o.k=2",
    ),
    "operator on self": edit(
        script("""
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def __matmul__(self,s): return s.sum()
                def unit_computation(self, s):
                    return (self@s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
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
    "deque state": edit(
        script("""
            import collections
            D=collections.deque([1])
            def h(s):
                D.append(3)
                return D[0]*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "[1]",
        "[2]",
    ),
    "global None then object": edit(
        script("""
            class M:
                def f(self,s): return s.sum()
            _m=None
            def get():
                global _m
                if _m is None: _m=M()
                return _m
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return get().f(s)
            """),
        "s.sum()",
        "2 * s.sum()",
    ),
    "global None then function": edit(
        script("""
            def mk(k): return lambda s: k*s.sum()
            _m=None
            def get():
                global _m
                if _m is None: _m=mk(1)
                return _m
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return get()(s)
            """),
        "mk(1)",
        "mk(2)",
    ),
    "nonlocal None then function": edit(
        script("""
            def mk(k): return lambda s: k*s.sum()
            def outer():
                m=None
                def get():
                    nonlocal m
                    if m is None: m=mk(1)
                    return m
                return get
            get=outer()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return get()(s)
            """),
        "mk(1)",
        "mk(2)",
    ),
    "namespace of same type changed elsewhere": edit(
        script("""
            T=types.SimpleNamespace(k=1)
            O=types.SimpleNamespace(k=0)
            def h(s):
                O.k=5
                return T.k*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "T=types.SimpleNamespace(k=1)",
        "T=types.SimpleNamespace(k=2)",
    ),
    "lazy attr on self in unit": edit(
        script("""
            def mk(): return 1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self,s):
                    if not hasattr(self,'c'): self.c=mk()
                    return self.c*s.sum()
            """),
        "return 1",
        "return 2",
    ),
    "lazy private cache dict on self from __init__": edit(
        script("""
            def mk(): return 1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def __init__(self,*a,**b):
                    super().__init__(*a,**b)
                    self.cache={}
                def unit_computation(self,s):
                    if 1 not in self.cache: self.cache[1]=mk()
                    return self.cache[1]*s.sum()
            """),
        "return 1",
        "return 2",
    ),
    "class-level list appended by self": edit(
        script("""
            K=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                log=[]
                def unit_computation(self,s):
                    self.log.append(1)
                    return K*s.sum()
            """),
        "K=1",
        "K=2",
    ),
    "scratch array global out=": edit(
        script("""
            B=np.zeros(4)
            def h(s):
                np.multiply(s,K,out=B)
                return B.sum()
            K=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "buffer sliced": edit(
        script("""
            B=np.zeros(4)
            K=1
            def h(s):
                B[:]=s*K
                return B.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "default mutable arg": edit(
        script("""
            K=1
            def h(s,memo={}):
                memo[1]=K
                return memo[1]*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "func attr counter": edit(
        script("""
            K=1
            def h(s):
                h.calls+=1
                return K*s.sum()
            h.calls=0
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "helper obj cache dict": edit(
        script("""
            class C:
                def __init__(self): self.memo={}
                def f(self,s):
                    self.memo[1]=K
                    return self.memo[1]*s.sum()
            M=C()
            K=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M.f(s)
            """),
        "K=1",
        "K=2",
    ),
    "helper obj lazily": edit(
        script("""
            class C:
                def f(self,s):
                    self.w=K
                    return self.w*s.sum()
            M=C()
            K=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M.f(s)
            """),
        "K=1",
        "K=2",
    ),
    "helper obj with setattr": edit(
        script("""
            class C:
                def f(self,s):
                    setattr(self,'w',K)
                    return self.w*s.sum()
            M=C()
            K=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M.f(s)
            """),
        "K=1",
        "K=2",
    ),
    "helper obj dict update": edit(
        script("""
            class C:
                def f(self,s):
                    self.__dict__.update(w=K)
                    return self.w*s.sum()
            M=C()
            K=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M.f(s)
            """),
        "K=1",
        "K=2",
    ),
    "local alias mutated": edit(
        script("""
            B={'a':[]}
            K=1
            def h(s):
                b=B['a']
                b.append(1)
                return K*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "mutated via helper arg": edit(
        script("""
            B=[]
            K=1
            def add(b): b.append(1)
            def h(s):
                add(B)
                return K*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "rng global draws": edit(
        script("""
            R=np.random.default_rng(1)
            K=1
            def h(s): return 0*R.random()+K*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "iterator global next": edit(
        script("""
            import itertools
            C=itertools.count()
            K=1
            def h(s): return 0*next(C)+K*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "lru bounded": edit(
        script("""
            @functools.lru_cache(maxsize=3)
            def h(x): return 1*x
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(1)*s.sum()
            """),
        "1*x",
        "2*x",
    ),
    "threading lock": edit(
        script("""
            import threading
            L=threading.Lock()
            K=1
            def h(s):
                with L: return K*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "obj holding lock": edit(
        script("""
            import threading
            class C:
                def __init__(self): self.l=threading.Lock()
                def f(self,s):
                    with self.l: return K*s.sum()
            M=C()
            K=1
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return M.f(s)
            """),
        "K=1",
        "K=2",
    ),
    "tqdm-like print of globals": edit(
        script("""
            import logging
            log=logging.getLogger(__name__)
            K=1
            def h(s):
                log.info('%s',__name__)
                return K*s.sum()
            class P(rs.Process):
                outputs = {'m': rs.Output()}
                def unit_computation(self, s):
                    return h(s)
            """),
        "K=1",
        "K=2",
    ),
    "counter of a wrapper": edit(
        script("""
            def counted(f):
                @functools.wraps(f)
                def wrapper(*a):
                    wrapper.calls += 1
                    return f(*a)
                wrapper.calls = 0
                return wrapper
            @counted
            def h(x): return 1 * x
            class P(rs.Process):
                outputs = {"m": rs.Output()}
                def unit_computation(self, s): return h(1) * s.sum()
            """),
        "1 * x",
        "2 * x",
    ),
    "bounds of a parameter that are read": edit(
        script("""
            class P(rs.Process):
                outputs = {"m": rs.Output()}
                k = param.Number(0, bounds=(0, 1))
                def unit_computation(self, s):
                    return self.param.k.bounds[1] * s.sum()
            """),
        "(0, 1)",
        "(0, 2)",
    ),
    "objects of a Selector that are read": edit(
        script("""
            class P(rs.Process):
                outputs = {"m": rs.Output()}
                k = param.Selector(objects=[5, 1])
                def unit_computation(self, s):
                    return self.param["k"].objects[-1] * s.sum()
            """),
        "[5, 1]",
        "[5, 2]",
    ),
    "converter of attrs": edit(
        script("""
            import attrs
            @attrs.define
            class C:
                k: int = attrs.field(default=1, converter=lambda x: 1 * x)
            class P(rs.Process):
                outputs = {"m": rs.Output()}
                def unit_computation(self, s): return C().k * s.sum()
            """),
        "1 * x",
        "2 * x",
    ),
    "validator of pydantic": edit(
        script("""
            import pydantic
            class C(pydantic.BaseModel):
                k: typing.Annotated[float, pydantic.AfterValidator(lambda x: 1 * x)]
            class P(rs.Process):
                outputs = {"m": rs.Output()}
                def unit_computation(self, s): return C(k=1).k * s.sum()
            """),
        "1 * x",
        "2 * x",
    ),
    "stencil of numba": edit(
        script("""
            import numba
            @numba.stencil
            def kernel(a): return 1 * a[0]
            @numba.njit
            def h(s): return kernel(s).sum()
            class P(rs.Process):
                outputs = {"m": rs.Output()}
                def unit_computation(self, s): return h(s)
            """),
        "1 * a",
        "2 * a",
    ),
}
