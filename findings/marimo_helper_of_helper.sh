#!/usr/bin/env bash
# marimo: an edit of the helper of a helper leaves a persistent cache as it is.
#
# Versions: marimo 0.25.2, Python 3.11.
# Expected: a function under mo.persistent_cache is computed again when any cell that it
#   depends on has changed, however far up the graph the cell is.
# Seen: measure() calls outer(), outer() calls inner(), each in a cell of its own. After an
#   edit of inner() the value from before the edit is returned, without a word. An edit of
#   outer() itself is noticed.
# This script fails when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q marimo==0.25.2

notebook() {  # factor of inner(), offset of outer()
    cat > notebook.py <<PY
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo

    return (mo,)


@app.cell
def _():
    def inner(value):
        return $1 * value

    return (inner,)


@app.cell
def _(inner):
    def outer(value):
        return inner(value) + $2

    return (outer,)


@app.cell
def _(mo, outer):
    @mo.persistent_cache
    def measure(value):
        return outer(value)

    return (measure,)


@app.cell
def _(measure):
    print(measure(10))
    return


if __name__ == "__main__":
    app.run()
PY
    env/bin/python notebook.py
}

first=$(notebook 1 0)
inner=$(notebook 2 0)
outer=$(notebook 2 5)
echo "at first: $first; inner() doubled: $inner (20 is right); outer() adds 5: $outer"
[ "$first" = 10 ] || { echo "changed: the first value is not 10"; exit 1; }
[ "$inner" = 10 ] || { echo "changed: the edit of inner() is noticed now"; exit 1; }
[ "$outer" = 25 ] || { echo "changed: the edit of outer() gives another value"; exit 1; }
echo "as described"
