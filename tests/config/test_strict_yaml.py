"""YAML without surprises: what it looks like, or an error with its line."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanhop.config import parse_yaml
from stanhop.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("1.", 1.0),
        ("true", True),
        ("false", False),
        ("no", "no"),
        ("on", "on"),
        ("True", "True"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2016-07-01", "2016-07-01"),
        ("[a, 2]", ["a", 2]),
        ("", None),
        ("null", None),
        ("'1'", "1"),
        ("%m/%d/%Y %H:%M", None),
    ],
)
def test_yaml_means_what_it_looks_like(text: str, value: object) -> None:
    if text.startswith("%"):
        with pytest.raises(ConfigError):  # a directive: quote it
            parse_yaml(text, file="here")
        assert parse_yaml(f"'{text}'", file="here") == text
    else:
        parsed = parse_yaml(text, file="here")
        assert parsed == value
        assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "key 'a' is written twice"),
        ("train:\n  seed: 1\n  seed: 2\n", 3, "key 'seed' is written twice"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "a tag is not supported"),
        ("a: &x [1]\nb: *x\n", 1, "an alias is not supported"),
        ("a: &x {b: *x}\n", 1, "an alias is not supported"),
        ("? [1, 2]\n: 3\n", 1, "a key must be a word"),
        ("a: [1\n", 2, "expected"),
        ("a: \x01\n", None, "is not YAML"),
        ("[" * 3000, None, "is not YAML"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(text: str, line: int | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_yaml(text, file="mine.yaml")
    assert caught.value.file == "mine.yaml"
    assert caught.value.line == line


@given(st.text(max_size=60))
@example("a: &a [*a, *a]")
@example("? {}\n: 1")
@example("=")
@example("<<: 1")
@example("!!timestamp x")
@example("!!int x")
def test_any_text_is_plain_data_or_a_config_error(text: str) -> None:
    try:
        parsed = parse_yaml(text, file="here")
    except ConfigError:
        return
    assert parsed is None or isinstance(parsed, bool | int | float | str | list | dict)
