"""YAML without its surprises, read and written: a value is what it looks like, and nothing is run or unfolded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stanhop.errors import Code, ConfigError, quoted

WRITE_PLAIN_YAML = "write plain YAML: each key once, special characters in quotes, no tags and no aliases"


class _StrictLoader(yaml.SafeLoader):
    """YAML without its surprises.

    ``1e-4`` is a number; ``no``, ``010``, ``1:30`` and dates stay text; a repeated key is an error, and so are tags
    (``!!python/…``) and aliases (with which a few lines unfold to gigabytes, or into themselves).
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        for name, is_there in (("an alias", event.anchor), ("a tag", getattr(event, "tag", None))):
            if is_there is not None:
                raise yaml.composer.ComposerError(None, None, f"{name} is not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key_node.value in seen:
                problem = f"key {quoted(key_node.value)} is written twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _StrictDumper(yaml.SafeDumper):
    """Quotes every text that either YAML's own rules or ours would take for something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # In single quotes PyYAML writes some line separators as they are, and reads them as blanks.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_StrictDumper.add_representer(str, _represent_text)

INTEGER = re.compile(r"^[-+]?(0|[1-9]\d*)$")
FLOAT = re.compile(r"^[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+)$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$")

_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":timestamp", ":float", ":int"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
for _writer_or_reader in (_StrictLoader, _StrictDumper):
    _writer_or_reader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
    _writer_or_reader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def parse_yaml(text: str, *, file: Path | str) -> Any:  # plain data of any shape
    """Plain data of a YAML ``text``; ``file`` names it in errors.

    Raises:
        ConfigError: it is not YAML, repeats a key, or asks for an object.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - _StrictLoader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError(
            Code.CONFIG, error.problem or "is not YAML", fix=WRITE_PLAIN_YAML, file=file, line=line
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(Code.CONFIG, f"is not YAML: {quoted(error)}", fix=WRITE_PLAIN_YAML, file=file) from None


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Plain ``values`` as YAML that ``parse_yaml`` reads back."""
    return yaml.dump(dict(values), Dumper=_StrictDumper, sort_keys=False, allow_unicode=True)
