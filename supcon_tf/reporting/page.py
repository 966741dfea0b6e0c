"""What every web page is made with."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def environment() -> jinja2.Environment:
    """What renders the templates beside this file."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Bokeh reads a plot in order: what is referred to stands before the reference.
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return made


def bokeh_js() -> str:
    """The script that draws the plots, to stand in the page."""
    from bokeh.resources import Resources

    # The core alone: widgets, tables, WebGL and formulas are not used.
    return Resources(mode="inline", components=["bokeh"]).render_js()
