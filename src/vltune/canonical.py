"""One form of every value: what is the same setting is the same text, however it was typed."""

from __future__ import annotations

import json
from typing import Any


def canonical(value: Any) -> Any:
    """Of plain data: a whole number is an int (1.0 and 1 are one value), a sequence a list."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: canonical(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(each) for each in value]
    return value


def text(value: Any) -> str:
    """JSON; the same for equal values."""
    return json.dumps(canonical(value), sort_keys=True)
