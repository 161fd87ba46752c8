"""Digests of values, code and whole computations, which never change.

A digest that changes here makes every old run unknown. Raise ``SCHEMA`` and say so in
the changelog before touching one; runs of the schema before must be found by a document
of that schema, as those of schema 1 are (``identity/earlier``).
"""

import golden
import h5py
import numpy as np
import pytest
from helpers import golden_under_hash_seeds

from resumable.identity import trace_function, write_value
from resumable.identity.record import digest_of
from resumable.model import SCHEMA, document_digest
from resumable.process.function import _process_of

VALUES = {
    "nothing": "74234e98afe7498fb5daf1f3",
    "true": "b5bea41b6c623f7c09f1bf24",
    "integer": "615bdd17c2556f82f384392e",
    "large integer": "f357dd857f636a730632409c",
    "float": "14be4b45f18e0d8c67b4f719",
    "negative zero": "c26617c7ccbcaa6631b45d85",
    "not a number": "c9772aeba1e20279e6937fa6",
    "complex": "6a09a3861bde01bd646b9af2",
    "text": "43c6e8bf4104f787222373c7",
    "bytes": "d9a45eab762fa010a7627e90",
    "list": "cdec3f26d09e7eaffefa435b",
    "tuple": "51c7928afc666b7787e34873",
    "dict": "7e1c61e6f91edec7d43e5b73",
    "dict of numbers": "85233c5bf54ccc9f550a83c2",
    "set": "b2953419f6b01ae70191af23",
    "frozen set": "35f134fa818900bdb14aa3c4",
    "dates": "d18c1486cf75d7353a549921",
    "duration": "f3cc0fb4eb78f423273b6403",
    "decimal": "34811eaba70548fe040eb46b",
    "fraction": "cb4d752105bed7d6082803f0",
    "path": "3ebb386552a9b8a1cb344916",
    "ranges": "58bd17d164b83f54f7c5b8c0",
    "enum": "5ed7adff39545fbe3cc6ecbd",
    "named tuple": "8d17f5538f6ce3ef4394d8b7",
    "dataclass": "8bee1e48a6115b096ccf5807",
    "numpy float": "aa94fe0f48c5bc449c89511a",
    "numpy small float": "d5fe27eece8210d66080dc48",
    "numpy integer": "f6f0c82c5e714b0d35ac8936",
    "numpy date": "8e0ce81f197ef6ed0146fa68",
    "dtype": "49e313ecb953e76dd53a89d5",
    "float array": "1f7d5918fe2419824b41567f",
    "array of no axes": "6a9cf9d6b67700d300967053",
    "swapped array": "69b637a2d1cce1d4a8bec90b",
    "complex array": "b1071e78f93d4d9774c0ce3c",
    "text array": "f0c122ab48fc55090d2f6384",
    "records": "191e4b6584f69196efffddf4",
    "date array": "e42e7383af5a8b20d10b2804",
    "object array": "e542d32637aeb55ae7f005f6",
    "masked array": "a55076fea8edd1614ae6a5f7",
    "generator": "a773427cb0f4c3d22cd0f18b",
    "function": "9beef566f3d0ee85a851c620",
    "wrapped function": "2c310af10bd7d6640feb6549",
    "partial": "7a5d70aaf31541dd6b9eec0f",
    "method": "6f9277fa4096ad94d8e20e18",
    "class": "7eeb852c341bb01e9eefa757",
    "of numpy": "aa891a58f8e191e94a301028",
    "of python": "bfc9d01ba8dd254872b29538",
}
CODE = {
    "function": "d702f28ff6053c1761da0faa",
    "wrapped function": "98295c5ca9887b2c81061168",
    "partial": "6135a2812658461bcc5e8c58",
    "method": "dc4ca2fd93e4e3d28cd441b9",
    "of numpy": "3dfdc17eccaed4da4b676153",
    "of python": "dc18613a02bd3c8d97763894",
}
#: Identities by schema 2; and by schema 1, as they were before helpers counted.
IDENTITIES = {
    "versioned": "f87d192c400b3b0352d417fd168020829bf5f3296e0d9b2c13d5ea4837a43604",
    "plain": "e0ea17d5d83d9a984da007eacf2fb299ae422a8780d4341c0fe355c6230d807d",
    "closing": "d51dcd7512baaadba576edeaf2a5ad6482373b254a58263ded0e8b8afdfc594d",
    "mapped": "5aadb3628380544f5fc9a697f102074acc5aa3e221ad412370fd210caa6056c0",
}
IDENTITIES_1 = {
    "versioned": "f6b3221335b758755fa4456230b751a8d71034b7ecca933dbe25a9b21b4121df",
    "plain": "b24136a55087b1199552bb882f56c1282f90dacfe31a2c27c105ddfef6d96012",
    "closing": "bc5ff57cfe9889ec7a9d9552baa81e753bc66a990539484250d462fcfe7aaab0",
    "mapped": "e5b5fc61ecf2c048285e9e8f3dee40b6a8eb64a8a5035ad743f3e0f9b8172886",
}
#: What is traced as code.
FUNCTIONS = (
    "function",
    "wrapped function",
    "partial",
    "method",
    "of numpy",
    "of python",
)


def golden_now():
    """Return all digests of values and of code as they are now."""
    values = {
        name: digest_of(write_value(value)) for name, value in golden.VALUES.items()
    }
    code = {
        name: trace_function(golden.VALUES[name], {})[0].trace.digest
        for name in FUNCTIONS
    }
    return {"values": values, "code": code}


def source_in(folder):
    with h5py.File(folder / "any name.h5", "w") as file:
        file["group/data"] = np.arange(12, dtype="<f4").reshape(4, 3)
    return f"{folder}/any name.h5::/group/data"


def processes(source):
    """Return Processes of every kind on a source."""
    closing, closed = golden.closing(2)
    mapped = _process_of(closed, None, None, {}, {"factor": 3.0})
    return {
        "versioned": golden.Versioned(source),
        "plain": golden.Plain(source, width=1),
        "closing": closing(source),
        "mapped": mapped(source),
    }


def identities(source):
    return {name: made.identity for name, made in processes(source).items()}


def test_the_schema_is_the_one_of_these_digests():
    """Another schema needs golden digests of its own, beside these."""
    assert SCHEMA == 2


def test_digests_of_values_and_code_never_change():
    now = golden_now()

    assert now["values"] == VALUES
    assert now["code"] == CODE


def test_identities_never_change(tmp_path):
    assert identities(source_in(tmp_path)) == IDENTITIES


def test_identities_of_schema_1_are_known_as_they_were(tmp_path):
    """By them, runs that were made before helpers counted are found."""
    found = {}
    for name, process in processes(source_in(tmp_path)).items():
        asked = process._computation()
        before = {**asked.document, "schema": 1, **asked.request.earlier()}
        before.pop("attributes", None)
        found[name] = document_digest(before)

    assert found == IDENTITIES_1


def test_digests_do_not_depend_on_the_hash_seed():
    found = golden_under_hash_seeds("test_golden")

    assert found == [{"values": VALUES, "code": CODE}] * 2


@pytest.mark.parametrize("name", ["LIMIT", "TABLE", "NAMES"])
def test_a_golden_digest_would_notice_an_edit(tmp_path, monkeypatch, name):
    source = source_in(tmp_path)
    before = golden.Plain(source).identity
    monkeypatch.setattr(golden, name, 1.5 if name == "LIMIT" else np.ones(2))

    assert golden.Plain(source).identity != before
