"""An audiobook with a narrator and several voices, from a plain text.

    make serve                                                     # in one terminal
    .venv/bin/python -m examples.audiobook                         # in another: a short story into audiobook.mp3
    .venv/bin/python -m examples.audiobook story.txt --cast narrator=demo_female,anna=demo_bright --out story.wav

The text has a line for each paragraph. `Anna (softly): Good morning.` is spoken by Anna's voice, with what stands in
brackets as instruction; all else is the narrator's. The service speaks the lines side by side and sends them in order,
so the book is written to disk while it is made, however long it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

STORY = """\
It was a cold morning.
Anna: Good morning, how are you today?
The old man looked at the sky.
Ben: It is cold today.
Anna (in a happy tone): The weather will be fine tomorrow.
"""
CAST = {"narrator": "demo_female", "anna": "demo_bright", "ben": "demo_deep"}
PAUSE_S = 0.4
_SPOKEN = re.compile(r"(?P<name>[^\W\d_]+)(?: \((?P<how>[^)]*)\))?: (?P<text>.+)")


def script_of(story: str, cast: Mapping[str, str]) -> list[dict[str, Any]]:
    """The lines of a script for the service. A name that is not in the cast is text like any other."""
    lines: list[dict[str, Any]] = []
    for paragraph in filter(None, map(str.strip, story.splitlines())):
        spoken = _SPOKEN.fullmatch(paragraph)
        name = spoken["name"].lower() if spoken else ""
        if spoken is None or name not in cast:
            lines.append({"voice": cast["narrator"], "text": paragraph})
        elif spoken["how"]:
            how = f"Speak {spoken['how']}."
            lines.append({"voice": cast[name], "text": spoken["text"], "instructions": how})
        else:
            lines.append({"voice": cast[name], "text": spoken["text"]})
    return lines


def read_aloud(url: str, lines: list[dict[str, Any]], out: Path) -> int:
    """Write the book to `out`, whose suffix is its format; returns its bytes. Raises httpx.HTTPStatusError."""
    body = {"lines": lines, "pause_s": PAUSE_S, "response_format": out.suffix.removeprefix(".")}
    written = 0
    with httpx.stream("POST", f"{url}/v1/audio/scripts", json=body, timeout=120) as answer:
        if answer.is_error:
            answer.read()
            answer.raise_for_status()
        with out.open("wb") as file:
            for sound in answer.iter_bytes():
                written += file.write(sound)
    return written


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Read a story aloud in several voices.")
    parser.add_argument("story", nargs="?", type=Path)
    parser.add_argument("--cast", help="narrator=VOICE,name=VOICE,...")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=Path("audiobook.mp3"))
    options = parser.parse_args(arguments)
    cast = CAST | (dict(role.lower().split("=") for role in options.cast.split(",")) if options.cast else {})
    story = options.story.read_text(encoding="utf-8") if options.story else STORY
    written = read_aloud(options.url, script_of(story, cast), options.out)
    print(f"{options.out}: {written} bytes")


if __name__ == "__main__":
    main()
