"""The service's own account of a first audio, as it comes in an HTTP answer, and what it explains.

Source of the header's form: W3C Server Timing, https://www.w3.org/TR/server-timing/.
"""

from __future__ import annotations

import re
from contextlib import suppress

from loadtest.record import StageTime

HEADER = "server-timing"

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PARAMETER = rf"\s*;\s*({_TOKEN})\s*(?:=\s*({_QUOTED}|{_TOKEN}))?"
_METRIC = re.compile(rf"\s*({_TOKEN})((?:{_PARAMETER})*)\s*(?:,|$)")
_TOTAL = "total"


def stages_of(header: str) -> tuple[StageTime, ...]:
    """Entries that have a duration, in the header's order, in seconds; `total` is their sum and is left out."""
    found = []
    for metric in _METRIC.finditer(header):
        name, parameters = metric.group(1), metric.group(2)
        for key, value in re.findall(_PARAMETER, parameters):
            if key.lower() == "dur" and name != _TOTAL:
                with suppress(ValueError):
                    found.append(StageTime(name, float(value.strip('"')) / 1000))
    return tuple(found)
