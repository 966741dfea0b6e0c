"""What all web pages share: the template environment and the plotting script."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supcon_tf.files import write_text
from supcon_tf.run_dir import RunDir

if TYPE_CHECKING:
    import jinja2


def as_run_dir(run: RunDir | str | os.PathLike) -> RunDir:
    """The run directory, or the one at a path."""
    return run if isinstance(run, RunDir) else RunDir(Path(run))


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Bokeh reads a plot in order: a model comes before references to it.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment


def render(template: str, path: str | os.PathLike, **values: Any) -> Path:
    """Fills in a template of this directory and writes the page, creating its directory."""
    page = Path(path)
    page.parent.mkdir(parents=True, exist_ok=True)
    text = _environment().get_template(template).render(values)
    # File names may have bytes that are not UTF-8.
    write_text(page, text, errors="backslashreplace")
    return page


def bokeh_js() -> str:
    """The script that draws the plots, to be embedded in the page."""
    from bokeh.resources import Resources

    # Only the core: widgets, tables, WebGL and formulas are not used.
    return Resources(mode="inline", components=["bokeh"]).render_js()
