"""A customer-service voice whose mood follows the conversation: emotions in three levels, by instruction.

    make serve                                                     # in one terminal
    .venv/bin/python -m examples.customer_service                  # in another: a whole call into service_call.wav
    .venv/bin/python -m examples.customer_service "I am sorry to hear that." --emotion apologetic --level 3

The model follows `instructions` (mode instruct2) as far as it was taught to: the official weights know moods, speed and
dialects; the demo voice that ships takes the instruction and speaks as ever.
"""

from __future__ import annotations

import argparse
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

RATE = 24000
INSTRUCTIONS = {
    "friendly": ("Speak in a friendly tone.", "Speak in a warm, cheerful tone.", "Speak with great joy."),
    "apologetic": ("Speak with slight regret.", "Speak softly and with regret.", "Speak slowly, with deep regret."),
    "firm": ("Speak calmly and clearly.", "Speak firmly and slowly.", "Speak very firmly, in a serious tone."),
}
"""By emotion, from the lowest level (1) to the highest."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the agent says and how: an emotion of `INSTRUCTIONS`, at level 1 to 3."""

    text: str
    emotion: str
    level: int

    @property
    def instructions(self) -> str:
        return INSTRUCTIONS[self.emotion][self.level - 1]


class Mood:
    """How the agent answers: each complaint in a row makes it more apologetic, and a kind word ends that."""

    def __init__(self) -> None:
        self._complaints = 0

    def reply(self, text: str, *, to_complaint: bool) -> Reply:
        self._complaints = self._complaints + 1 if to_complaint else 0
        return Reply(text, "apologetic" if to_complaint else "friendly", min(max(self._complaints, 1), 3))


def a_call() -> list[Reply]:
    """Both sides know how such calls go; the customer's lines stand as comments."""
    mood = Mood()
    return [
        mood.reply("Good morning, how can I help you?", to_complaint=False),
        # "My train was late."
        mood.reply("I am sorry to hear that.", to_complaint=True),
        # "And nobody told us anything!"
        mood.reply("That should not have happened.", to_complaint=True),
        # "I waited for three hours!"
        mood.reply("I am very sorry, we will pay you back.", to_complaint=True),
        # "Thank you."
        mood.reply("Thank you, and have a good day.", to_complaint=False),
    ]


def speak(client: httpx.Client, reply: Reply, voice: str) -> Iterable[bytes]:
    """The sound of a reply while it is made: 16-bit samples at 24 kHz. Raises httpx.HTTPStatusError."""
    body = {"input": reply.text, "voice": voice, "instructions": reply.instructions, "response_format": "pcm"}
    with client.stream("POST", "/v1/audio/speech", json=body) as answer:
        if answer.is_error:
            answer.read()
            answer.raise_for_status()
        yield from answer.iter_bytes()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speak as customer service does.")
    parser.add_argument("text", nargs="?", help="a reply; without one, a whole call")
    parser.add_argument("--emotion", choices=sorted(INSTRUCTIONS), default="friendly")
    parser.add_argument("--level", type=int, choices=(1, 2, 3), default=1)
    parser.add_argument("--voice", default="demo_female")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=Path("service_call.wav"))
    options = parser.parse_args(arguments)
    replies = [Reply(options.text, options.emotion, options.level)] if options.text else a_call()
    with httpx.Client(base_url=options.url, timeout=120) as client, wave.open(str(options.out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for reply in replies:
            print(f"{reply.emotion} {reply.level}: {reply.text}")
            for sound in speak(client, reply, options.voice):
                file.writeframes(sound)
    print(options.out)


if __name__ == "__main__":
    main()
