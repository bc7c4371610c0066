"""Write docs/config.md, the reference of every key of the config, from the config's JSON schema.

python docs/make_config_reference.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverslip.config import schema
from coverslip.runtime import write_file

PAGE = Path(__file__).parent / "config.md"
HEAD = "# Config reference\n\nWritten by `make docs` from the schema; do not edit. An empty default means not given.\n"
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
WORDS = {"object": "table", "array": "list"}


def reference() -> str:
    """The page as Markdown: a table a section, a row a key."""
    whole = schema()
    sections = {name: whole["$defs"][link["$ref"].rsplit("/", 1)[1]] for name, link in whole["properties"].items()}
    return HEAD + "".join(section_text(name, section) for name, section in sections.items())


def section_text(name: str, section: Mapping[str, Any]) -> str:
    """One section: its heading, its sentence, its table."""
    rows = [
        f"| `{key}` | {cell(values(spec))} | {cell(default(spec))} | {cell(spec.get('description', ''))} |\n"
        for key, spec in section["properties"].items()
    ]
    head = f"\n## [{name}]\n\n{section['description']}\n\n| key | values | default | meaning |\n|---|---|---|---|\n"
    return head + "".join(rows)


def values(spec: Mapping[str, Any]) -> str:
    """What a key takes, in words.

    >>> values({"type": "integer", "minimum": 1})
    'integer at least 1'
    >>> values({"anyOf": [{"type": "boolean"}, {"const": "auto"}, {"type": "null"}]})
    'boolean or `auto`'
    """
    if "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec["enum"])
    if "const" in spec:
        return f"`{spec['const']}`"
    if "anyOf" in spec:
        return " or ".join(values(each) for each in spec["anyOf"] if each.get("type") != "null")
    kind = WORDS.get(spec.get("type", "value"), spec.get("type", "value"))
    inside = f" of {values(spec['items'])}" if "items" in spec else ""
    limits = ", ".join(f"{words} {spec[name]:g}" for name, words in BOUNDS.items() if name in spec)
    return f"{kind}{inside} {limits}".rstrip()


def default(spec: Mapping[str, Any]) -> str:
    """The default as it is written in TOML; empty where there is none."""
    value = spec.get("default")
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def cell(text: str) -> str:
    """Text that may stand in a Markdown table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write_file(PAGE, reference())
