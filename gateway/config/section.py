"""What every part of the configuration has in common: frozen, unknown keys refused, secrets also from files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, SecretStr
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from gateway.config.document import Keys


def classes_in(annotation: Any) -> Iterator[type[Any]]:
    """Every class that stands somewhere in an annotation."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from classes_in(part)


class Section(BaseModel):
    """A part of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    open_words: ClassVar[frozenset[str]] = frozenset()  # what may stand in the place of a secret and is none
    instead: ClassVar[Mapping[str, str]] = {}  # a key that must be there -> the one that can stand in its place

    @classmethod
    def file_keys(cls) -> dict[str, Any]:
        """The keys as written in the file, with their types."""
        return {field.alias or name: field.annotation for name, field in cls.model_fields.items()}

    @classmethod
    def secret_keys(cls) -> list[str]:
        """Those of the keys that may be given as ``key_file`` instead."""
        return [key for key, annotation in cls.file_keys().items() if SecretStr in classes_in(annotation)]

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        for key in cls.secret_keys():
            either = [{"required": [key]}, {"required": [f"{key}_file"]}]
            schema["properties"][f"{key}_file"] = {"type": "string", "description": f"a file that holds {key}"}
            needed = key in schema.get("required", ())
            schema["required"] = [name for name in schema.get("required", ()) if name != key]
            schema.setdefault("allOf", []).append({"oneOf": either} if needed else {"not": {"allOf": either}})
        for key, other in cls.instead.items():
            schema["required"].remove(key)
            schema.setdefault("allOf", []).append({"anyOf": [{"required": [key]}, {"required": [other]}]})
        return schema


def flatten(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every single setting with its keys as in the file."""
    if isinstance(value, Section):
        for name, field in type(value).model_fields.items():
            yield from flatten(getattr(value, name), (*keys, field.alias or name))
    elif isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from flatten(part, (*keys, name))
    elif isinstance(value, tuple) and value and isinstance(value[0], Section):
        for index, part in enumerate(value):
            yield from flatten(part, (*keys, index))
    else:
        yield keys, value
