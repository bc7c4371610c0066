"""The documentation says what is true: commands and keys exist, the reference is current, the examples run."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from coverslip.cli import app
from coverslip.config import RunConfig
from coverslip.training.recipes import recipe_names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", DOCS / "guide.md")
SECTIONS = RunConfig.model_fields


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The `coverslip ...` lines of a page's shell blocks, as arguments."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("coverslip ")]


def parse(arguments: list[str]) -> list[tuple[str, Any]]:
    """What the real command line understands; no command is run."""
    command = typer.main.get_command(app)
    context = command.make_context("coverslip", list(arguments), resilient_parsing=False)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return list(context.params.items())


def is_section(text: str) -> bool:
    """Whether a dotted word is meant as a key, and not as the name of a file."""
    section, _, rest = text.partition(".")
    return section in SECTIONS and rest not in ("csv", "json", "safetensors", "toml")


def is_key(text: str) -> bool:
    section, _, key = text.partition(".")
    name = key.split(".")[0]
    return section in SECTIONS and (name in SECTIONS[section].default.__class__.model_fields)


def test_config_reference_is_current() -> None:
    script = load_script(DOCS / "make_config_reference.py")
    assert (DOCS / "config.md").read_text(encoding="utf-8") == script.reference(), "run `make docs`"


def test_config_reference_names_every_key() -> None:
    page = (DOCS / "config.md").read_text(encoding="utf-8")
    keys = [key for section in SECTIONS.values() for key in section.default.__class__.model_fields]
    assert len(keys) > 60
    assert [key for key in keys if f"\n| `{key}` |" not in page] == []


@pytest.mark.parametrize(("page", "least"), [(PAGES[0], 6), (PAGES[1], 25)], ids=lambda value: getattr(value, "name", value))
def test_commands_exist(page: Path, least: int) -> None:
    found = commands(page)
    assert len(found) >= least
    for arguments in found:
        parse(arguments)


def test_a_wrong_command_would_be_noticed() -> None:
    parse(["train", "gel", "--recipe", "quick"])
    for wrong in (["trian", "gel"], ["train", "gel", "--recipes", "quick"], ["predict", "run", "images"], ["weights", "get", "resnet18"]):
        with pytest.raises(Exception, match=r"No such|Missing|no such"):
            parse(wrong)


def test_keys_and_recipes_exist() -> None:
    keys, recipes = [], []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        keys += re.findall(r"-s ['\"]?([a-z_]+\.[\w.]+)=", text)
        keys += [key for key in re.findall(r"`([a-z]+\.[a-z_]+)\b(?![(/])", text) if is_section(key)]
        recipes += [name for name in re.findall(r"--recipe ([\w.-]+)", text) + re.findall(r'recipe="([\w-]+)"', text) if "." not in name]
    assert len(keys) > 60
    assert [key for key in keys if not is_key(key)] == []
    assert len(recipes) > 10
    assert [name for name in recipes if name not in (*recipe_names(), "runs", "NAME")] == []


def test_links_lead_somewhere() -> None:
    pages = [*PAGES, DOCS / "README.md", DOCS / "architecture.md", ROOT / "CONTRIBUTING.md"]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))]
    local = [(page, link) for page, link in links if not link.startswith("http")]
    assert len(local) > 15
    assert [f"{page.name}: {link}" for page, link in local if not (page.parent / link).exists()] == []


def test_anchors_of_the_guide_exist() -> None:
    text = PAGES[1].read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    anchors = re.findall(r"\]\(#([^)]+)\)", text)
    assert len(anchors) > 15
    assert [anchor for anchor in anchors if anchor not in headings] == []


def test_pages_hold_no_path_of_a_machine() -> None:
    problems = load_script(DOCS / "notebooks" / "build.py").problems
    assert problems("see /tmp/a/b.png") == ["/tmp/a/b.png"]
    pages = [*PAGES, *DOCS.glob("*.md"), *(DOCS / "notebooks").rglob("*.md"), *(DOCS / "notebooks").glob("*.ipynb")]
    assert len(pages) >= 10
    assert {page.name: found for page in pages if (found := problems(page.read_text(encoding="utf-8")))} == {}


def test_notebooks_are_those_of_their_stories() -> None:
    build = load_script(DOCS / "notebooks" / "build.py")
    assert sorted(path.stem for path in (DOCS / "notebooks").glob("*.ipynb")) == sorted(build.STORIES)
    for name in build.STORIES:
        written = json.loads((DOCS / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        sources = [(cell["cell_type"], "".join(cell["source"])) for cell in written["cells"]]
        assert sources == [(cell["cell_type"], cell["source"]) for cell in build.make_notebook(name)["cells"]], (
            "run docs/notebooks/build.py"
        )
        assert len(sources) > 10


def example_data(place: Path) -> None:
    from coverslip.simulate import simulate

    simulate("gels", place / "gel", images=20, seed=1)
    simulate("gels", place / "new_gel", images=4, seed=2)


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights in the place of learned ones: the code runs; its numbers say nothing."""
    torch = pytest.importorskip("torch")
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    header = {"architecture": "mobilenetv2_100", "library": "timm", "arguments": "{}", "input_size": "[3, 32, 32]"}
    network = timm.create_model("mobilenetv2_100", num_classes=0)
    (tmp_path / "weights").mkdir()
    save_file(network.state_dict(), tmp_path / "weights" / "mobilenetv2_100.safetensors", header)
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    example_data(tmp_path)
    (code,) = blocks(PAGES[0], "python")
    small = code.replace('recipe="gel-probe", ', 'recipe="gel-probe", split={"repeats": 1}, pixels={"height": 32, "width": 32}, ')
    small = small.replace('regime="probe")', 'regime="probe", height=32)')
    assert small.count("32") == 3
    names: dict[str, Any] = {}
    exec(compile(small, "README.md", "exec"), names)
    assert len(names["predictions"]) == 4
    assert names["probabilities"].shape == (4, 2)
    assert names["run"].report.is_file()


def test_python_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example_data(tmp_path)
    code = blocks(PAGES[1], "python")
    assert len(code) == 3
    names: dict[str, Any] = {}
    for block in code:
        exec(compile(block, "guide.md", "exec"), names)
    assert len(names["table"]) == 4
    assert names["scores"].shape == (4, 2)
    assert (tmp_path / "evaluations" / "gel-quick" / "metrics.json").is_file()
    assert "coverslip" in sys.modules


def test_the_guide_lists_every_recipe_once() -> None:
    text = (DOCS / "guide.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", text[text.index("| recipe | for |") :].split("\n\n")[0], re.MULTILINE)
    assert sorted(listed) == recipe_names()
    assert len(listed) == 10
