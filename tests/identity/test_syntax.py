"""Syntax trees are written alike by every Python."""

import ast

from resumable.identity.syntax import tree_digest

#: Python 3.12 divides f-strings otherwise and has new fields; 3.13 leaves fields out.
CODE = r'''def f1(x: int = 3, *, k: "str" = 'a') -> float:
    """doc"""
    a = f"pre {x!r:>{k}} mid {{}} {x=} {x + 1:.2f}" "tail" f"{k}"
    b = f'{f"{x}":>10}' + f"" + f"lit"
    c = "a" "b" + f"a" "b"
    g = f"{x:%Y-%m}" f"{x!s}" f"{'q'}" f"{x:{k}.{k}}"
    h = f"""
    {x
       + 1} a\n\t\x41 \N{BULLET}"""
    m = f"{x = }" f"{x=!r:^20}" rf"\d{x}\n" f"{x:\x20>5}"
    n = f"{x:{'>'}{5}}{x}" + f"{lambda_(x)}" f"{{{x}}}" + f"{x!r}{{"
    return a
def f2(a, /, b, *c, d=1, **e):
    y: int = 3
    z: str
    del y
    global Q
    import os as o, sys
    from . import q
    with a as b, c: pass
    try: pass
    except* ValueError as er: raise er from None
    match a:
        case {"k": v, **r} if v > 1: pass
        case [1, *_] | C(x=3) | None: pass
        case -1 | 1+2j | "s": pass
    for i in c: continue
    else: pass
    while True: break
    assert a, "m"
    lam = lambda p, *q, r=2: (yield)
    s = a[1:2, ..., ::3]
    t = (w := 3)
    u = {**e, 'a': 1}, {1, 2}, [*c]
    v = 1_000, 0x10, 1e3, 1j, b'x', ..., None, True
    print(*c, k=1, **e)
    return {i: j for i, j in b if i if j}
async def f3():
    async with a as b: await b
    return [i async for i in b]
@dec(1)
class K(B, metaclass=M):
    """doc"""
    x: int = 1
    def m(self): return super().m()
    def e(self):
        """only doc"""
'''
#: As 3.11, 3.12 and 3.13 have written each definition.
DIGESTS = [
    "abdcd66dbd0759ccc495fbae",
    "09ad57c276ab21aa8ce7bee0",
    "7a42b5285f5ad23a1bb51a28",
    "378e3b8e193b33f12bc2e08e",
]


def test_every_python_writes_a_syntax_tree_alike():
    found = [tree_digest((node,), docs=True) for node in ast.parse(CODE).body]

    assert found == DIGESTS


def test_fields_that_another_python_adds_do_not_count():
    (node,) = ast.parse("def f(x): return f'{x}a'").body
    before = tree_digest((node,), docs=False)
    node.type_params = []
    node.returns = ast.Name("float")
    text = node.body[0].value.values
    text[1:] = [ast.Constant(""), ast.Constant("a")]

    assert tree_digest((node,), docs=False) == before
    text[2] = ast.Constant("b")
    assert tree_digest((node,), docs=False) != before
