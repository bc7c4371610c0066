"""The templates of the pages: `frame.html` around, `macros.html` for the parts, one file a kind of page."""

from __future__ import annotations

from functools import cache
from importlib import resources

import jinja2

from coverslip.report.numbers import count, shorten

SUFFIXES = (".html", ".css")


@cache
def template(name: str) -> jinja2.Template:
    """A template of this package, by the name of its file."""
    files = [file for package in ("coverslip.report", "coverslip.report.study") for file in resources.files(package).iterdir()]
    texts = {file.name: file.read_text(encoding="utf-8") for file in files if file.name.endswith(SUFFIXES)}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(texts),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"count": count, "shorten": shorten}
    return environment.get_template(name)
