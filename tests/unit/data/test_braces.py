"""Names of many files in one text."""

from __future__ import annotations

import pytest

from coverslip.data.braces import expand_braces
from coverslip.errors import InputError


def test_names_in_braces_are_those_that_a_shell_makes() -> None:
    assert expand_braces("a{9..11}{x,}.tar") == ["a9x.tar", "a9.tar", "a10x.tar", "a10.tar", "a11x.tar", "a11.tar"]
    assert expand_braces("{003..001}") == ["003", "002", "001"]
    assert expand_braces("{0..10..5}") == ["0", "5", "10"]
    assert expand_braces("{a,b{1..2}}") == ["a", "b1", "b2"]
    assert expand_braces("images/{Id}.png") == ["images/{Id}.png"]
    with pytest.raises(InputError, match="more than 100,000 names"):
        expand_braces("{0..99999999999}.tar")
