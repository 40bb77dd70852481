"""Every key of a config with its type, default and meaning, read from the pydantic models themselves.

`curate config` prints them and the reference pages are made of them, so neither can say what the code does not do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from curate.config import Execution, Settings, settings_in

SECTION = "section"
"""Type of a key that holds other keys."""
_PLAIN = {"boolean": "true | false", "integer": "integer", "number": "number", "string": "text", "null": "null"}
_NO_LINE_BREAK = 1 << 20


@dataclass(frozen=True)
class Key:
    """One key of a config."""

    name: str
    """Where it stands in the file, with dots: `copies.embed.model`. Keys of the items of a list have brackets:
    `sources.pool[].path`."""
    type: str
    """What it takes: `integer >= 1`, `number 0..1 | null`, `all | results`, `section`."""
    default: str | None
    """What it is where nothing is said, as YAML on one line; empty: a section; None: it must be given."""
    meaning: str
    """The docstring under the field, on one line."""
    execution: bool
    """Whether it changes speed only, and no result."""


def keys_of(model: type[Settings], *, at: str = "") -> list[Key]:
    """Every key of a config, in the order of its fields; those of a section follow it.

    A section that may be of several kinds, such as `objective`, has the keys of all of them; the meaning of one that
    not all have alike begins with the kinds that have it.

    Args:
        model: the class that the config is checked against.
        at: key that the whole stands under; empty: at the top.
    """
    return list(_keys(model, None, at=at, execution=False, described={}))


def yaml_line(value: Any) -> str:
    """A value as YAML on one line: `null`, `[0.04, 0.2]`, `auto`."""
    text = yaml.safe_dump(_plain(value), default_flow_style=True, sort_keys=False, width=_NO_LINE_BREAK)
    return text.removesuffix("\n").removesuffix("\n...")


def _keys(
    model: type[Settings], given: Settings | None, *, at: str, execution: bool, described: dict[type[Settings], str]
) -> Iterator[Key]:
    """The keys of one section.

    Args:
        given: the values of the section where the config says nothing; None: those of its class.
        described: by class, the list whose items were told with these keys; filled on the way.
    """
    schemas = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        place = f"{at}.{name}" if at else name
        value = field.get_default(call_default_factory=True) if given is None else getattr(given, name)
        speed = execution or any(isinstance(mark, Execution) for mark in field.metadata)
        kind = _type(schemas[name])
        inside = [one for one in settings_in(field.annotation) if not (one.extensible and _is_base(one))]
        listed = bool(inside) and kind.startswith("list")
        if listed and inside[0] in described:
            kind = f"list of sections, as {described[inside[0]]}"
        default = None if value is PydanticUndefined else "" if isinstance(value, Settings) else yaml_line(value)
        yield Key(place, kind, default, " ".join((field.description or "").split()), speed)
        if listed and inside[0] not in described:
            described[inside[0]] = place
            yield from _keys(inside[0], None, at=f"{place}[]", execution=speed, described=described)
        elif not listed:
            yield from _of_kinds(
                {
                    one: list(_keys(one, _if_of(one, value), at=place, execution=speed, described=described))
                    for one in inside
                },
                value,
            )


def _if_of(model: type[Settings], value: Any) -> Settings | None:
    return value if type(value) is model else None


def _is_base(model: type[Settings]) -> bool:
    """Whether an extensible class names no kind of its own, as those that others are made from."""
    return model.model_fields["kind"].is_required()


def _kind_of(model: type[Settings]) -> str:
    """What tells a section of this class from others: its kind, else the key that it begins with."""
    fields = model.model_fields
    return str(fields["kind"].default) if "kind" in fields else f"with {next(iter(fields))}"


def _of_kinds(sections: dict[type[Settings], list[Key]], given: Any) -> Iterator[Key]:
    """The keys of all kinds that a section may be of; one that all have alike comes once.

    Args:
        given: the value of the section where the config says nothing.
    """
    kinds: dict[Key, list[str]] = {}
    for model, keys in sections.items():
        for key in keys:
            kinds.setdefault(key, []).append(_kind_of(model) if len(sections) > 1 else "")
    choice = [key for key, having in kinds.items() if len(sections) > 1 and key.name.endswith(".kind")]
    if choice:
        kind = given.kind if type(given) in sections else None
        yield replace(choice[0], type=" | ".join([*(key.type for key in choice), "text"]), default=kind)
    for key, having in kinds.items():
        if len(having) == len(sections):
            yield key
        elif key not in choice:
            yield replace(key, meaning=f"{', '.join(having)}: {key.meaning}")


def _plain(value: Any) -> Any:
    """A value as YAML can hold it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _type(schema: dict[str, Any]) -> str:
    """In words what a JSON schema allows."""
    if "$ref" in schema or "allOf" in schema:
        return SECTION
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    members = schema.get("anyOf") or schema.get("oneOf")  # oneOf: of a union whose members are told apart
    if members:
        return " | ".join(dict.fromkeys(_type(one) for one in members))
    if schema.get("type") == "array":
        fixed = schema.get("prefixItems")
        return f"[{', '.join(map(_type, fixed))}]" if fixed else f"list of {_many(_type(schema.get('items', {})))}"
    if schema.get("type") == "object":
        return f"mapping of names to {_many(_type(_values(schema)))}"
    return f"{_PLAIN.get(schema.get('type', ''), 'anything')}{_bounds(schema)}"


def _values(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of the values of a mapping."""
    found: Any = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), {})
    return found if isinstance(found, dict) else {}


def _many(name: str) -> str:
    """The type of many values: `integers >= 1`."""
    for one in ("integer", "number", SECTION):
        if name.startswith(one) and " | " not in name:
            return f"{one}s{name.removeprefix(one)}"
    return f"({name})" if " | " in name else name


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" {_number(low)}..{_number(high)}"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    found = [f"{sign} {_number(schema[word])}" for word, sign in signs.items() if word in schema]
    return f" {', '.join(found)}" if found else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
