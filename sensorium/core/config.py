"""The frozen, typed config tree: YAML in and out, overrides, kind answers to typos.

A config node is a `Config` subclass beside the class it builds. Nodes that come in
kinds (encoders, projectors, ...) carry a literal `kind` and are declared in a
`NameTable`; `kinds(table, base)` makes the field type that reads them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError

from sensorium.core.atomic import write_text
from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean
from sensorium.core.tables import NameTable

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """A frozen node of the config tree; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain JSON values, `kind` included."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The tree as YAML, in declaration order."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def save(self, path: Path) -> None:
        """Write the tree as YAML, atomically."""
        write_text(path, self.to_yaml())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config") -> Self:
        """Validate a plain mapping.

        Raises:
            ConfigError: naming the place of every bad key or value.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _explain(error, cls, where) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file written by hand or by `save`."""
        return cls.from_dict(read_yaml(path), where=str(path))

    def override(self, assignments: Iterable[str]) -> Self:
        """The same tree with `dotted.key=value` assignments applied.

        Values are YAML; list items are addressed by index or by their `name`.

        Raises:
            ConfigError: a key does not exist (the nearest one is named) or a value
                does not fit.
        """
        values = self.to_dict()
        for assignment in assignments:
            _assign(values, assignment)
        return type(self).from_dict(values, where="override")


def kinds(table: NameTable, base: type[ConfigT]) -> Any:
    """The annotated field type for a polymorphic node: reads `{kind: name, ...}`."""

    def read(value: Any) -> Any:
        if isinstance(value, base) or value is None:
            return value
        if not isinstance(value, Mapping) or "kind" not in value:
            raise ConfigError(
                f"{table.noun} is {value!r}",
                expected="a mapping with a 'kind'",
                fix=f"choose one of {', '.join(sorted(table))}",
            )
        kind = str(value["kind"])
        return table.find(kind).from_dict(value, where=f"{table.noun} {kind}")

    return Annotated[SerializeAsAny[base], BeforeValidator(read)]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such config file", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not readable as YAML: {error}", where=str(path)) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"top level is {type(values).__name__}", expected="a mapping", where=str(path)
        )
    return values


def _assign(values: dict[str, Any], assignment: str) -> None:
    path, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"override {assignment!r} has no '='", expected="dotted.key=value")
    keys = path.strip().split(".")
    node: Any = values
    for depth, key in enumerate(keys):
        where = ".".join(keys[:depth]) or "the top level"
        index = _index(node, key, where)
        if depth == len(keys) - 1:
            try:
                node[index] = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ConfigError(f"value {text!r} is not YAML: {error}", where=path) from None
        else:
            node = node[index]


def _index(node: Any, key: str, where: str) -> Any:
    """The key or list position that `key` names inside `node`."""
    if isinstance(node, list):
        names: dict[str, int] = {}
        for i, item in enumerate(node):
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                names[item["name"]] = i
        if key.isdigit() and int(key) < len(node):
            return int(key)
        if key in names:
            return names[key]
        known = [*names, *map(str, range(len(node)))]
        raise ConfigError(f"no item {key!r} in {where}", fix=did_you_mean(key, known))
    if isinstance(node, dict):
        if key in node:
            return key
        raise ConfigError(f"unknown key {key!r} in {where}", fix=did_you_mean(key, node))
    raise ConfigError(f"{where} is the value {node!r} and has no key {key!r}")


def _explain(error: ValidationError, root: type[BaseModel], where: str) -> ConfigError:
    """One ConfigError that lists every problem pydantic found."""
    lines: list[str] = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _fields_at(root, problem["loc"][:-1])
            key = str(problem["loc"][-1])
            lines.append(f"unknown key {place!r} ({did_you_mean(key, known)})")
        else:
            cause = problem.get("ctx", {}).get("error")
            text = str(cause) if isinstance(cause, Exception) else problem["msg"]
            lines.append(f"{place or 'value'}: {text}")
    return ConfigError("; ".join(lines), where=where)


def _fields_at(root: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the node that `location` points into, as far as types tell."""
    node: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(node, "model_fields", {}).get(part)
        if field is None:
            return list(getattr(root, "model_fields", {}))
        node = _model_in(field.annotation) or node
    return list(getattr(node, "model_fields", {}))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
