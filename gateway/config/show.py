"""Settings seen from outside: the effective values with their origins, their JSON schema, what a reload changed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import SecretStr

from gateway.config.document import Keys, dotted
from gateway.config.loading import Loaded
from gateway.config.models import BackendSettings, Settings
from gateway.config.section import flatten
from gateway.config.values import MASK

RESTART_KEYS = ("state_dir", "spool", "event_loop")  # and all below them: a running gateway cannot take them at SIGHUP


def show(loaded: Loaded) -> str:
    """YAML of what is in effect, which can be loaded again but for the masked secrets; comments say where from."""
    plain = loaded.settings.model_dump(mode="json", by_alias=True)
    lines = [f"# {loaded.path or 'built-in default'}"]
    before: Keys = ()
    for keys, value in flatten(loaded.settings):
        shown: Any = plain
        for key in keys:
            shown = shown[key]
        shown = MASK if isinstance(value, SecretStr) else shown
        for depth, key in enumerate(keys[:-1]):
            if keys[: depth + 1] != before[: depth + 1]:
                lines.append("  " * depth + ("-" if isinstance(key, int) else f"{key}:"))
        text = json.dumps(shown, ensure_ascii=False)
        lines.append(f"{'  ' * (len(keys) - 1)}{keys[-1]}: {text}  # {loaded.origins[dotted(keys)]}")
        before = keys
    return "\n".join(lines) + "\n"


def diff(old: Settings, new: Settings) -> dict[str, str]:
    """The dotted keys that differ: changed, added or removed, a whole named part as one; never a value."""
    before, after = dict(flatten(old)), dict(flatten(new))
    olds, news = ({keys[:n] for keys in side for n in range(1, len(keys) + 1)} for side in (before, after))
    found = {}
    for keys in before | after:
        if before.get(keys, ...) != after.get(keys, ...):
            parts = (keys[:n] for n in range(1, len(keys) + 1))
            part = next((part for part in parts if (part in olds) != (part in news)), keys)
            found[dotted(part)] = "changed" if part in olds & news else "added" if part in news else "removed"
    return found


def restart_keys(changed: Collection[str]) -> list[str]:
    """Those of the changed keys that take effect only at a restart."""
    return [key for key in changed if key.partition(".")[0] in RESTART_KEYS]


def schema(types: Mapping[str, type[BackendSettings]]) -> dict[str, Any]:
    """The JSON schema of the file: draft 2020-12, with the settings of every backend type."""
    result = Settings.model_json_schema()
    del result["required"]  # all of it has defaults, which only loading knows
    for name, model in types.items():
        part = model.model_json_schema()
        result["$defs"] |= part.pop("$defs", {})
        part["properties"]["type"] = {"const": name}
        part["required"] = ["type", *(key for key in part.get("required", ()) if key != "type")]
        result["$defs"][f"backend_{name}"] = part
    one_of = {"oneOf": [{"$ref": f"#/$defs/backend_{name}"} for name in types]}
    backends = result["properties"]["backends"]
    backends["patternProperties"] = dict.fromkeys(backends["patternProperties"], one_of)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | result
