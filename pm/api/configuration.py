# SPDX-License-Identifier: Apache-2.0
"""The configuration in force as JSON. It names files with secrets; what is in them it does not have."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypedDict

from typing_extensions import Doc

from pm.api.schemas import DIGEST
from pm.config.load import Loaded
from pm.notation import yaml_key
from pm.path_managers.choice import PathManagerChoice


class ConfigurationShape(TypedDict):
    digest: Annotated[str, DIGEST, Doc("SHA-256 of the configuration in force, hexadecimal.")]
    configuration: Annotated[
        dict[str, Any],
        Doc("As in the file, with the defaults of what was left out; durations are seconds, sizes bytes."),
    ]


def configuration_view(loaded: Loaded) -> ConfigurationShape:
    return {"digest": loaded.digest, "configuration": _written(loaded.config)}


def _written(value: Any) -> Any:
    if isinstance(value, PathManagerChoice):
        return {value.name: _written(value.parameters)}
    if dataclasses.is_dataclass(value):
        return {yaml_key(f.name): _written(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _written(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_written(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
