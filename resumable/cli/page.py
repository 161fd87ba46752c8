"""A run as one page of HTML, with its pictures inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resumable.cli import report
from resumable.errors import ParameterError, as_html, near
from resumable.model import name_of_position
from resumable.results import Results, draw_histograms, draw_maps, html_of_figure
from resumable.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from resumable.runfile import RunFile

#: What every page begins with: a page of ours is written anew, another file is not.
_BEGINS = "<!DOCTYPE html>\n<!-- report of a run of resumable -->"
#: Most bytes of a picture; a larger one is drawn smaller.
_MOST_BYTES = 2_000_000
_TRACEBACKS = 5
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto;
  padding: 0 1em; color: #222; background: #fff }
pre { overflow-x: auto; font-size: 13px; line-height: 1.35 }
img { max-width: 100%; background: #fff }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1b } }
"""


def write_page(run: RunFile, place: Path | None) -> Path:
    """Write the page of a run, by default beside it; return where it is.

    ParameterError: the file is there and is no page of ours, but a run file, say.
    """
    path = place or run.path.with_suffix(".html")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_BEGINS)) != _BEGINS.encode():
                msg = f"{near(path)} exists and is no report; give another name by -o"
                raise ParameterError(msg)
    text = page_of(run)
    path.write_text(text, encoding="utf-8")
    return path


def page_of(run: RunFile) -> str:
    """Return the page of a run: maps, histograms, all that ``show`` says, its code."""
    results = Results(run)
    about = report.show_text(run)
    parts = [
        f"{_BEGINS}<html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{as_html(run.path.name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{as_html(run.path.name)}</h1><p>{as_html(results.status)}</p>",
        f"<h2>Maps</h2>{_picture(results, draw_maps, 'maps of the outputs')}",
        "<h2>Histograms</h2>",
        _picture(results, draw_histograms, "histograms of the outputs"),
        f"<h2>Provenance</h2><pre>{as_html(about, lines=True)}</pre>",
        *_failures(run),
    ]
    if results.source_text:
        code = as_html(results.source_text, lines=True)
        parts.append(f"<h2>Code</h2><pre>{code}</pre>")
    parts.append(f"<p>Made by resumable {__version__}.</p></body></html>\n")
    return "\n".join(parts)


def _picture(results: Results, draw: Callable[..., Any], words: str) -> str:
    figure = draw(results, results)
    for dpi in (100, 70, 50, 30):
        text = html_of_figure(figure, words, dpi)
        if len(text) < _MOST_BYTES:
            break
    return text


def _failures(run: RunFile) -> Iterator[str]:
    """Yield the tracebacks of the first failures, each to be opened by a click."""
    for number, failure in enumerate(run.failures()[:_TRACEBACKS]):
        if not number:
            yield "<h2>Failures</h2>"
        place = name_of_position(failure.position, run.header.map_shape)
        yield (
            f"<details><summary>{place}: {as_html(failure.exception)}: "
            f"{as_html(failure.message)}</summary>"
            f"<pre>{as_html(failure.traceback, lines=True)}</pre></details>"
        )
