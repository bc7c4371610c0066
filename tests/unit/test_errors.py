import inspect
import re

import pytest

from coverslip import errors
from coverslip.errors import BadImagesError, ConfigError, CoverslipError, bullet_list, did_you_mean


def drawn_tree() -> dict[str, tuple[int, str]]:
    """Class -> (depth, builtin) as the head of the file draws it."""
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    (?P<bars>[│├└─ ]*)(?P<name>\w+Error)(?: \((?P<builtin>\w+)\))?", line)
        if match:
            found[match["name"]] = (len(match["bars"]) // 4, match["builtin"] or "")
    return found


def test_the_tree_at_the_head_of_the_file_is_the_tree_in_the_code() -> None:
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, CoverslipError)}
    drawn = drawn_tree()
    assert drawn.keys() == classes.keys()
    assert len(drawn) == 16
    parents: list[str] = []
    for name, (depth, builtin) in drawn.items():
        parents[depth:] = [name]
        if depth:
            assert classes[parents[depth - 1]] in classes[name].__bases__, name
        if builtin:
            assert issubclass(classes[name], getattr(__builtins__, builtin, None) or __builtins__[builtin]), name


def test_every_class_but_the_base_can_be_caught_as_a_builtin() -> None:
    for name in drawn_tree():
        bases = [base for base in getattr(errors, name).__mro__ if base.__module__ == "builtins"]
        assert len(bases) > (2 if name == "CoverslipError" else 3), name  # beyond Exception, BaseException, object


def test_one_problem_stands_alone_and_several_are_listed() -> None:
    assert str(ConfigError("only this")) == "only this"
    error = ConfigError(["first", "second"])
    assert error.problems == ["first", "second"]
    assert str(error).splitlines() == ["the config has 2 problems:", "  - first", "  - second"]


def test_braces_in_a_problem_are_left_alone() -> None:
    assert "{x}" in bullet_list(["{x}", "{n}"], head="{n} things:")


def test_bad_images_carry_the_whole_list_and_the_advice() -> None:
    problems = {f"{number}.png": "truncated" for number in range(60)}
    error = BadImagesError(problems, "leave them out")
    assert error.problems == problems
    assert str(error).startswith("60 images cannot be used")
    assert str(error).endswith("\nleave them out")
    assert sum(line.startswith("  - ") for line in str(error).splitlines()) == 60
    assert str(BadImagesError({"a.png": "empty"})).startswith("1 image cannot")


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("epocs", ["epochs", "ema"], "epochs"),
        ("mobilenetv2", ["vgg16", "mobilenetv2_100"], "mobilenetv2_100"),
        ("id", ["Target", "Id"], "Id"),
        ("Green", ["blue", "green"], "green"),
        ("Golgi", ["Cytosol", "Golgi apparatus"], "Golgi apparatus"),
    ],
)
def test_the_near_word_is_offered(word: str, known: list[str], near: str) -> None:
    assert did_you_mean(word, known) == f" Did you mean {near!r}?"


def test_nothing_is_offered_when_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["epochs", "ema"]) == ""
    assert did_you_mean("zzz", []) == ""
    assert did_you_mean("ep", ["epochs and what belongs to them"]) == ""
