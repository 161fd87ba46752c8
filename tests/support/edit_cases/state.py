"""Edits beside what the computation changes itself."""

from edits import edit, script

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

STATE = {
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
