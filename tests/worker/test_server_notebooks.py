"""Workers of classes that were typed into a notebook."""

import json
import os
import textwrap

import h5py
import numpy as np
import pytest
from user_scripts import UNGUARDED, finished

from resumable.worker.server import START_METHODS

pytestmark = [pytest.mark.timeout(60, method="signal")]


NOTEBOOK = """
    import json, sys, time
    import nbformat
    from nbclient import NotebookClient

    cells = json.load(sys.stdin)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
    )
    NotebookClient(notebook, timeout=30, kernel_name="python3").execute()
    print(json.dumps([
        "".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells
    ]))
"""

INTERRUPTED = """
    import json, sys, time
    from pathlib import Path
    from jupyter_client.manager import start_new_kernel

    cells = json.load(sys.stdin)
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        asked = client.execute(cells[0])
        deadline = time.monotonic() + 20
        while len(Path("log").read_text().split()
                  if Path("log").exists() else []) < 20:
            if time.monotonic() > deadline:
                sys.exit("nothing was computed")
            time.sleep(0.01)
        manager.interrupt_kernel()
        found = []
        def hook(message):
            content = message["content"]
            found.append([message["msg_type"], content.get("ename") or
                          content.get("text") or ""])
        # A reply to an earlier request, such as that for kernel information, may
        # still be in the queue.
        def reply(get):
            while True:
                message = get(timeout=30)
                if message["parent_header"].get("msg_id") == asked:
                    return message["content"]
        first = reply(client.get_shell_msg)
        while reply(client.get_iopub_msg).get("execution_state") != "idle":
            pass
        second = client.execute_interactive(
            cells[1], timeout=30, output_hook=hook
        )["content"]
        print(json.dumps([first, second["status"], found]))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
"""


def in_kernel(script, text, cells):
    env = {"JUPYTER_PLATFORM_DIRS": "1", "PYTHONWARNINGS": "ignore"}
    old = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        process = script(
            f"import io, sys\nsys.stdin = io.StringIO({json.dumps(cells)!r})\n"
            + textwrap.dedent(text)
        )
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return json.loads(finished(process).splitlines()[-1])


def test_a_class_typed_into_a_notebook_works_with_both_start_methods(means, script):
    cell = textwrap.dedent(UNGUARDED).replace("outputs =", "version = 1\n    outputs =")
    top, _, last = cell.rpartition("Mean(")
    computed = [
        f"r = Mean({last.format(method=method).strip()[:-1]}, override=True)\n"
        "print(r['mean'][...].tolist())"
        for method in START_METHODS
    ]
    outputs = in_kernel(
        script, NOTEBOOK, [top.format(), *computed, "print(open('imported').read())"]
    )

    for output in outputs[1:3]:
        assert json.loads(output.splitlines()[-1]) == means.tolist()
    assert outputs[3].strip() == "x"


def test_a_class_typed_into_a_notebook_needs_no_version(tmp_path, means, script):
    cell = textwrap.dedent(
        """
        import resumable as rs
        class Mean(rs.Process):
            outputs = {"mean": rs.Output()}
            def unit_computation(self, spectrum):
                return spectrum.mean()
        print(Mean("scan.h5::/data").compute(engine="serial")["mean"][0])
        """
    )
    edited = cell.replace(".mean()", ".mean() + 1")
    outputs = in_kernel(script, NOTEBOOK, [cell, edited, cell])
    numbers = [float(output.split()[-1]) for output in outputs]

    assert numbers == [means[0], means[0] + 1, means[0]]


BESIDE = """
import resumable as rs

def helper():
    return 1.0

class Beside(rs.Process):
    outputs = {"value": rs.Output()}
    def unit_computation(self, spectrum):
        return helper() * 10
"""


def test_an_edited_module_is_loaded_again_or_refused(tmp_path, means, script):
    (tmp_path / "beside.py").write_text(BESIDE)
    compute = """
try:
    made = beside.Beside("scan.h5::/data")
    print(made.compute(engine="local", workers=1, progress=False)["value"][0])
except rs.DeclarationError as error:
    print(error)
"""

    def edit(*edits):
        text = BESIDE
        for old, new in edits:
            text = text.replace(old, new)
        return f"from pathlib import Path; Path('beside.py').write_text({text!r})"

    helper, own = ("1.0", "2.00"), ("* 10", "* 1000")
    outputs = in_kernel(
        script,
        NOTEBOOK,
        [
            f"import importlib, beside, resumable as rs\n{compute}",
            edit(helper),
            compute,
            f"importlib.reload(beside)\n{compute}",
            "%load_ext autoreload\n%autoreload 2",
            edit(helper, own),
            compute,
        ],
    )

    assert [outputs[i].split()[-1] for i in (0, 3, 6)] == ["10.0", "20.0", "2000.0"]
    assert "beside.py was edited after helper was imported from it" in outputs[2]
    assert "import it anew" in outputs[2]


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_interrupting_a_kernel_leaves_it_usable(tmp_path, script, engine):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.ones((200, 4))
    cells = [
        f"""
import os, time
import resumable as rs

class Slow(rs.Process):
    version = 1
    outputs = {{"mean": rs.Output()}}
    def unit_computation(self, spectrum):
        fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"%d\\n" % self.position)
        os.close(fd)
        time.sleep(0.01)
        return spectrum.mean()

slow = Slow("scan.h5::/data")
slow.compute(engine="{engine}", workers=2)
""",
        f"""
before = slow.results.status
r = slow.compute(engine="{engine}", workers=2)
print(before.done, before.pending > 0, r.status.finished)
""",
    ]
    first, second, found = in_kernel(script, INTERRUPTED, cells)
    positions = list(map(int, (tmp_path / "log").read_text().split()))
    (line,) = [
        text.split()
        for kind, text in found
        if kind == "stream" and "True" in text.split()
    ]

    assert (first["status"], first["ename"]) == ("error", "KeyboardInterrupt")
    assert "run the same again" in first["evalue"]
    assert second == "ok"
    assert int(line[0]) >= 20
    assert line[1:] == ["True", "True"]
    assert sorted(positions) == list(range(200))
