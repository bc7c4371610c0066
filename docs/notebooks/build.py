"""Write and execute the notebooks of this folder from the stories in `stories/`.

    python docs/notebooks/build.py --data FOLDER

FOLDER holds the data sets `gel`, `charts` and `nuclei`, a folder a class each. The notebooks run in a temporary folder in
which links to the data and to the weights lie, so that no path of the machine gets into their outputs. `--plain` writes them
without running them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = Path(__file__).parent
LARGEST = 600_000
"""Bytes of a notebook that is committed, at most."""

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|tmp|root|Users|var|mnt|data)/[\w./-]+")


STORIES = {"gels": "gel", "charts": "charts", "nuclei": "nuclei"}
"""Notebooks, each with the data set that it needs."""


def make_notebook(name: str, minutes: float = 1.0) -> nbformat.NotebookNode:
    """The notebook of a story without outputs: its fenced Python blocks are code cells, what stands between them is text.

    Ids of cells are numbers, so that the same story gives the same file.
    """
    text = (FOLDER / "stories" / f"{name}.md").read_text(encoding="utf-8").replace("MINUTES", f"{minutes:g}")
    pieces = re.split(r"^```python\n(.*?)\n```$", text, flags=re.MULTILINE | re.DOTALL)
    makers = itertools.cycle((new_markdown_cell, new_code_cell))
    cells = [make(piece.strip("\n")) for make, piece in zip(makers, pieces, strict=False) if piece.strip()]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def execute(notebook: nbformat.NotebookNode, data: Path) -> None:
    """Run a notebook in a temporary folder with a link to its data set and to the weights; its outputs are put into it."""
    weights = [Path(folder).resolve() for folder in os.environ.get("COVERSLIP_WEIGHTS", "").split(os.pathsep) if folder]
    with tempfile.TemporaryDirectory() as holder:
        place = Path(holder)
        (place / data.name).symlink_to(data.resolve())
        named = []
        for number, folder in enumerate(weights):
            name = "weights" if not number else f"weights-{number}"
            (place / name).symlink_to(folder)
            named.append(name)
        os.environ["COVERSLIP_WEIGHTS"], before = os.pathsep.join(named), os.environ.get("COVERSLIP_WEIGHTS", "")
        try:
            NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": holder}}).execute()
        finally:
            os.environ["COVERSLIP_WEIGHTS"] = before
    tidy(notebook)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Drop times and progress messages, which change from run to run."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream" or output.name != "stderr"]


def problems(text: str) -> list[str]:
    """What speaks against committing a notebook: its size, and paths of this machine."""
    found = [f"{len(text.encode())} bytes; at most {LARGEST}"] if len(text.encode()) > LARGEST else []
    return found + sorted(set(MACHINE_PATH.findall(text)))


def build(names: Iterable[str], data: Path | None, out: Path, minutes: float) -> None:
    """Write the named notebooks, executed where `data` is given.

    Raises:
        SystemExit: a notebook is too large, or holds a path of this machine; it is not written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        notebook = make_notebook(name, minutes)
        if data is not None:
            execute(notebook, data / STORIES[name])
        nbformat.validate(notebook)
        text = nbformat.writes(notebook) + "\n"
        if found := problems(text):
            sys.exit(f"{name}.ipynb is not written: {'; '.join(found)}")
        (out / f"{name}.ipynb").write_text(text, encoding="utf-8")
        sys.stdout.write(f"{out / name}.ipynb: {len(text.encode()) / 1000:.0f} kB\n")


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--data", type=Path, help="folder that holds gel, charts and nuclei")
    group.add_argument("--plain", action="store_true", help="write the notebooks without running them")
    parser.add_argument("--only", choices=STORIES, action="append", help="build this notebook; all when not given")
    parser.add_argument("--minutes", type=float, default=1.0, help="training.minutes of charts and nuclei")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    build(options.only or STORIES, None if options.plain else options.data, options.out, options.minutes)


if __name__ == "__main__":
    main()
