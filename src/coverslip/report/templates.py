"""The templates of the pages: `frame.html` around, `macros.html` for the parts, one file a kind of page."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from coverslip.report.numbers import count, shorten

SUFFIXES = (".html", ".css")
ONE_WORD = re.compile(r"-s \S+=\S+|\w[\w.]*-[\w.]+-[\w.-]*\w")
"""What a line should not end in the middle of: names of runs, and options."""
LONGEST_WORD = 40
"""Characters; what is longer may be broken."""


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
    environment.filters |= {"count": count, "shorten": shorten, "whole": whole}
    return environment.get_template(name)


def whole(text: str) -> Markup:
    """A text in which names of runs and options stay on one line where they can.

    >>> str(whole("cpu-vgg16-adam & others"))
    '<span class="whole">cpu-vgg16-adam</span> &amp; others'
    """
    parts, last = Markup(), 0
    for found in ONE_WORD.finditer(text):
        if len(found.group()) > LONGEST_WORD:
            continue
        parts += escape(text[last : found.start()]) + Markup('<span class="whole">{}</span>').format(found.group())
        last = found.end()
    return parts + escape(text[last:])
