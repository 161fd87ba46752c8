#!/usr/bin/env bash
# redun: a decorator's argument is no part of the task that it decorates.
#
# Versions: redun 0.44.1, Python 3.11.
# Expected: a task is known by its name and its source code, so that an edit of the lines of
#   its definition makes it run again; lines of decorators stand in the definition.
# Seen: the lines above "def" are cut off before the source is hashed. With another decorator
#   between @task and def, an edit of this decorator's argument returns the old value.
# This script fails when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q redun==0.44.1

flow() {  # argument of the decorator, expression that the task returns
    cat > flow.py <<PY
import functools

from redun import Scheduler, task
from redun.config import Config


def times(factor):
    def decorate(function):
        @functools.wraps(function)
        def scaled(value):
            return factor * function(value)

        return scaled

    return decorate


@task(namespace="demo")
@times($1)
def measure(value):
    return $2


config = Config({"backend": {"db_uri": "sqlite:///flow.db"}})
scheduler = Scheduler(config=config)
scheduler.load()
print(scheduler.run(measure(10)))
PY
    env/bin/python flow.py 2> /dev/null
}

first=$(flow 1 value)
argument=$(flow 2 value)
body=$(flow 2 "value + 1")
echo "at first: $first; @times(2): $argument (20 is right); body edited: $body"
[ "$first" = 10 ] || { echo "changed: the first value is not 10"; exit 1; }
[ "$argument" = 10 ] || { echo "changed: the decorator's argument is noticed now"; exit 1; }
[ "$body" = 22 ] || { echo "changed: the edit of the body gives another value"; exit 1; }
echo "as described"
