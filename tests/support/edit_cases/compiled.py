"""Edits of functions that numba compiles."""

from edits import edit, unit

TWICE = ("s.sum()", "2 * s.sum()")
HELPER = "def h(s):\n    return s.sum()\n"

COMPILED = {
    "njit": edit(
        unit("h(s)", "import numba\n@numba.njit\ndef h(s): return s.sum()"), *TWICE
    ),
    "static njit": edit(
        unit(
            "self.h(s)",
            "import numba",
            "@staticmethod\n@numba.njit\ndef h(s): return s.sum()",
        ),
        *TWICE,
    ),
    "njit with a cache": edit(
        unit("h(s)", "import numba\n@numba.njit(cache=True)\ndef h(s): return s.sum()"),
        *TWICE,
    ),
    "njit that calls njit": edit(
        unit(
            "h(s)",
            """
            import numba
            @numba.njit
            def g(s): return s.sum()
            @numba.njit
            def h(s): return g(s)
            """,
        ),
        *TWICE,
    ),
    "constant of njit": edit(
        unit("h(s)", "import numba\nK = 1\n@numba.njit\ndef h(s): return K * s.sum()"),
        "K = 1",
        "K = 2",
    ),
    "closure of njit": edit(
        unit(
            "h(s)",
            """
            import numba
            def make(k):
                @numba.njit
                def inner(s): return k * s.sum()
                return inner
            h = make(1)
            """,
        ),
        "make(1)",
        "make(2)",
    ),
    "options of njit": edit(
        unit(
            "h(s[0] - 4.0)",
            """
            import numba
            @numba.njit(error_model="python")
            def g(x): return 1.0 / x
            def h(x):
                try:
                    return g(x)
                except ZeroDivisionError:
                    return 22.0
            """,
        ),
        'error_model="python"',
        'error_model="numpy"',
        float("inf"),
    ),
    "numba vectorize": edit(
        unit("h(s).sum()", "import numba\n@numba.vectorize\ndef h(x): return 1 * x"),
        "1 * x",
        "2 * x",
    ),
    "numba guvectorize": edit(
        unit(
            "h(s)",
            """
            import numba
            @numba.guvectorize(["f8[:], f8[:]"], "(n)->()")
            def h(s, out): out[0] = 1 * s.sum()
            """,
        ),
        "1 * s",
        "2 * s",
    ),
}
