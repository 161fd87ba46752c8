"""Edits of what is reached in unusual ways."""

from edits import edit, script

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

REACHED = {
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
}
