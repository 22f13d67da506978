"""The frozen, typed config tree: YAML in and out, overrides, kind answers to typos.

A config node is a `Config` subclass beside the class it builds. Nodes that come in
kinds (encoders, projectors, ...) carry a literal `kind` and are declared in a
`NameTable`; `kinds(table, base)` makes the field type that reads them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, cast, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from sensorium.core.atomic import write_text
from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean
from sensorium.core.tables import NameTable


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

        Values are YAML; list items are addressed by index or by their `name`. Another `kind` drops the keys of
        the old one; those of the new one may be assigned beside it, in any order.

        Raises:
            ConfigError: a key does not exist (the nearest one is named) or a value
                does not fit.
        """
        values = self.to_dict()
        # Kinds first: they decide which keys there are.
        for assignment in sorted(assignments, key=_turn):
            _assign(values, assignment)
        return type(self).from_dict(values, where="override")


def kinds(
    table: NameTable, base: type[Config], default: str | None = None
) -> BeforeValidator:
    """Metadata of a polymorphic field: reads `{kind: name, ...}` by a name table.

        AnyEncoder = Annotated[SerializeAsAny[EncoderConfig], kinds(ENCODERS, EncoderConfig)]

    Args:
        default: the kind of a mapping that names none, for what had no kinds once.
    """

    def read(value: Any) -> Any:
        if isinstance(value, base) or value is None:
            return value
        mapping = as_mapping(value)
        if mapping is not None and default is not None:
            mapping = {"kind": default, **mapping}
        if mapping is None or "kind" not in mapping:
            raise ConfigError(
                f"{table.noun} is {value!r}",
                expected="a mapping with a 'kind'",
                fix=f"choose one of {', '.join(sorted(table))}",
            )
        kind = str(mapping["kind"])
        return table.find(kind).from_dict(mapping, where=f"{table.noun} {kind}")

    return BeforeValidator(read)


def as_mapping(value: Any) -> Mapping[str, Any] | None:
    """The value as a mapping, or None where it is none."""
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else None


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
    return cast(dict[str, Any], values)


def _turn(assignment: str) -> tuple[bool, int]:
    """Outer kinds before inner ones, and all kinds before the rest."""
    path = assignment.partition("=")[0].strip()
    return (False, path.count(".")) if path.endswith(".kind") else (True, 0)


class _NewKind(dict[str, Any]):
    """A node whose keys are its kind's, which validation knows, and not the old ones."""


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
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ConfigError(f"value {text!r} is not YAML: {error}", where=path) from None
            if key == "kind" and node[index] != value and depth > 0:
                node = _replaced(values, keys[:depth])
            node[index] = value
        elif isinstance(node, _NewKind):
            node = node.setdefault(index, _NewKind())
        else:
            node = node[index]


def _replaced(values: dict[str, Any], keys: list[str]) -> _NewKind:
    """An empty node in the place that the keys lead to."""
    node: Any = values
    for key in keys[:-1]:
        node = node[_index(node, key, "")]
    fresh = _NewKind()
    node[_index(node, keys[-1], "")] = fresh
    return fresh


def _index(node: Any, key: str, where: str) -> Any:
    """The key or list position that `key` names inside `node`."""
    if isinstance(node, list):
        items = cast(list[Any], node)
        names: dict[str, int] = {}
        for i, item in enumerate(items):
            mapping = as_mapping(item)
            if mapping is not None and isinstance(mapping.get("name"), str):
                names[mapping["name"]] = i
        if key.isdigit() and int(key) < len(items):
            return int(key)
        if key in names:
            return names[key]
        known = [*names, *map(str, range(len(items)))]
        raise ConfigError(f"no item {key!r} in {where}", fix=did_you_mean(key, known))
    fields = as_mapping(node)
    if fields is not None:
        if key in fields or isinstance(node, _NewKind):
            return key
        raise ConfigError(f"unknown key {key!r} in {where}", fix=did_you_mean(key, fields))
    raise ConfigError(f"{where} is the value {node!r} and has no key {key!r}")


def _explain(error: ValidationError, root: type[BaseModel], where: str) -> ConfigError:
    """One ConfigError that lists every problem pydantic found."""
    lines: list[str] = []
    for problem in error.errors():
        location: tuple[int | str, ...] = problem["loc"]
        place = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            known = _fields_at(root, location[:-1])
            key = str(location[-1])
            lines.append(f"unknown key {place!r} ({did_you_mean(key, known)})")
        else:
            cause = problem.get("ctx", {}).get("error")
            text = str(cast(object, cause)) if isinstance(cause, Exception) else problem["msg"]
            lines.append(f"{place or 'value'}: {text}")
    return ConfigError("; ".join(lines), where=where)


def _fields_at(root: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the node that `location` points into, as far as types tell."""
    node: Any = root
    named = False  # Of a mapping's items: a name that is no field.
    for part in location:
        if isinstance(part, int) or named:
            named = False
            continue
        field = getattr(node, "model_fields", {}).get(part)
        if field is None:
            return list(getattr(root, "model_fields", {}))
        node = _model_in(field.annotation) or node
        named = _is_mapping(field.annotation)
    return list(getattr(node, "model_fields", {}))


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(cast(type[Any], annotation), BaseModel):
        return cast(type[BaseModel], annotation)
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    for inner in arguments:
        found = _model_in(inner)
        if found is not None:
            return found
    return None
