"""The text of a class: what of it counts, and what its methods use from outside."""

import ast
import functools
from typing import ClassVar

import pytest

import resumable as rs
from resumable.errors import IdentityError
from resumable.identity.earlier import class_text, normalised_source, text_digest

PLAIN = """
class Fit(Process):
    def unit_computation(self, spectrum):
        if spectrum.size > 3:
            return spectrum.mean() * 2
        return 0.5
"""
DRESSED = '''
class Fit( Process ):
    """Fit it."""   # with a comment

    "another text"

    def unit_computation(self,
                         spectrum):   # and one here
        """Do one position."""

        if (spectrum.size > 3):
            "why"
            return (spectrum.mean()
                    * 2)
        return 0.50
'''


def test_comments_docstrings_and_layout_do_not_count():
    """Explaining a function better does not recompute a night's work."""
    assert normalised_source(DRESSED) == normalised_source(PLAIN)


def test_indentation_of_the_whole_does_not_count():
    inside = PLAIN.replace("\n", "\n        ")

    assert normalised_source(inside) == normalised_source(PLAIN)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("* 2", "* 5"),
        ("0.5", "0.5000001"),
        ("> 3", ">= 3"),
        ("mean", "median"),
        ("return 0.5", "return '0.5'"),
        ("(self, spectrum)", "(self, spectrum, extra=1)"),
        ("class Fit(Process)", "class Fit(Other)"),
        ("return 0.5", "print(0.5)"),
    ],
)
def test_every_change_of_the_code_counts(before, after):
    edited = PLAIN.replace(before, after)

    assert edited != PLAIN
    assert normalised_source(edited) != normalised_source(PLAIN)


def test_a_text_that_is_used_counts():
    first = 'def f(x):\n    mode = "a"\n    return g(x, mode)'
    second = first.replace('"a"', '"b"')

    assert normalised_source(first) != normalised_source(second)


def test_a_function_of_a_docstring_alone_is_still_a_function():
    text = normalised_source('def f():\n    """Do nothing."""')

    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse("def f(): pass"))


def test_a_nested_class_may_hold_text_that_reaches_the_margin():
    inner = 'class A:\n    text = """\nat the margin\n"""\n'
    nested = inner.replace("class", "    class").replace("    text", "        text")

    assert normalised_source(nested) == normalised_source(inner)


class Base(rs.Process):
    """Bases of the user's own count, too."""

    version = 1
    factor = 2


class Derived(Base):
    """Inherit."""

    outputs: ClassVar = {"mean": rs.Output()}

    def unit_computation(self, spectrum):
        return spectrum.mean() * self.factor


def test_the_source_text_holds_the_users_own_bases_and_not_the_librarys():
    text = class_text(Derived)

    assert "spectrum.mean() * self.factor" in text
    assert "factor = 2" in text
    assert "class Process" not in text
    assert "class Parameterized" not in text


def test_the_text_of_a_nested_class_is_normalised_beside_that_of_its_base():
    class Nested(Base):
        text = """
at the margin
"""

    normal = normalised_source(class_text(Nested))

    assert "at the margin" in normal
    assert "factor = 2" in normal


def test_a_class_without_source_text_has_none():
    namespace = {"rs": rs, "__name__": "nowhere"}
    exec("class Typed(rs.Process): version = 1", namespace)

    assert class_text(namespace["Typed"]) is None


def test_the_digest_of_a_text_is_its_sha256():
    assert text_digest("abc").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")


def test_what_a_class_has_closed_over_is_part_of_its_identity(tmp_path):
    import resumable as rs

    def make(number):
        class Times(rs.Process):
            outputs = {"product": rs.Output()}  # noqa: RUF012

            def setup(self):
                super().setup()

            def unit_computation(self, position):
                return number * position

        return Times(3, target=tmp_path)

    two, again, three = (make(n).compute(engine="serial") for n in (2, 2, 3))

    assert two == again
    assert two.path != three.path
    assert three["product"][2] == 6
    with pytest.raises(
        IdentityError, match=r"'number', used by .*Times.unit_computation from"
    ):
        make(n for n in range(3)).identity  # noqa: B018


@pytest.mark.parametrize("kind", [property, functools.cached_property, "base"])
def test_what_a_property_or_a_base_has_closed_over_counts(tmp_path, kind):
    def base(number):
        class Base(rs.Process):
            outputs = {"product": rs.Output()}  # noqa: RUF012

            def unit_computation(self, position):
                return number * position * self.factor

            factor = 1

        return Base

    def times(inherited, number):
        class Times(inherited):
            @(property if kind == "base" else kind)
            def factor(self):
                return number

        return Times(3, target=tmp_path)

    def make(number):
        return times(*((base(number), 7) if kind == "base" else (base(7), number)))

    two, again, three = (make(n).compute(engine="serial") for n in (2, 2, 3))

    assert two == again
    assert (two["product"][2], three["product"][2]) == (28, 42)


def test_texts_are_normalised_in_several_threads_at_once():
    """The interpreter's own parser is not made for that."""
    from concurrent.futures import ThreadPoolExecutor

    text = "def f(x):\n" + "".join(
        f"    x = (x + {n}) * [x, {n}][0]\n" for n in range(400)
    )
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(normalised_source, [text] * 40))

    assert len(found) == 1
