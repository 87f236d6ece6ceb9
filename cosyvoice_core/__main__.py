"""`python -m cosyvoice_core`: speak a text or look into a checkpoint, without Ray."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from cosyvoice_core.audio.encode import write_wav
from cosyvoice_core.checkpoint.inspection import inspect_checkpoint
from cosyvoice_core.device import usable_device
from cosyvoice_core.errors import CheckpointError, InputError
from cosyvoice_core.inputs import FloatArray, Mode, VoicePrompt
from cosyvoice_core.synthesis import Synthesizer
from cosyvoice_core.utterance import MAX_SPEED, MIN_SPEED, SpeechRequest

_DEFAULT_MODEL = str(Path(__file__).resolve().parent.parent / "checkpoints" / "demo")


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        if options.command == "inspect":
            inspection = inspect_checkpoint(options.directory)
            print(inspection.render())
            return 0 if inspection.sound else 1
        return _speak(options)
    except (InputError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cosyvoice_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    speak = commands.add_parser("speak", help="speak a text into a WAV file")
    speak.add_argument("text", nargs="?", default="", help="what to say; '-' reads it from standard input")
    speak.add_argument("--model", default=_DEFAULT_MODEL, help="checkpoint directory or model id (default: the demo)")
    speak.add_argument("--voice", help="name of a saved voice")
    speak.add_argument("--prompt", type=Path, help="audio of the voice to speak in, 0.5 to 30 s")
    speak.add_argument("--transcript", default="", help="what is said in the prompt audio")
    speak.add_argument("--source", type=Path, help="with --mode vc: the audio whose words are spoken, not a text")
    speak.add_argument("--mode", type=Mode, choices=list(Mode), help="chosen by what is given, if left out")
    speak.add_argument("--instruction", default="", help="how to speak, for example a dialect or an emotion")
    speak.add_argument("--seed", type=int, help="same seed, same audio; drawn and shown if left out")
    speak.add_argument("--speed", type=float, default=1.0, help=f"{MIN_SPEED} to {MAX_SPEED}")
    speak.add_argument("--stream", action="store_true", help="write audio while it is made (chunk-causal flow)")
    speak.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    speak.add_argument("--out", type=Path, default=Path("speech.wav"))

    inspect = commands.add_parser("inspect", help="what a checkpoint holds, and whether it is sound")
    inspect.add_argument("directory", type=Path)
    return parser


def _speak(options: argparse.Namespace) -> int:
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    if not options.out.parent.is_dir():
        raise InputError("out", f"there is no folder {str(options.out.parent)!r}")
    synthesizer = Synthesizer.from_pretrained(options.model, device=usable_device(options.device))
    voice = _voice(synthesizer, options)
    began = time.perf_counter()
    if options.mode is Mode.CONVERSION:
        if options.source is None:
            raise InputError("source", "mode vc needs the audio to convert", "--source FILE")
        chunks: Iterable[FloatArray]
        if options.stream:
            converted = synthesizer.stream_conversion(options.source, voice, seed=seed, speed=options.speed)
            chunks = _timed(converted, began)
        else:
            chunks = [synthesizer.convert(options.source, voice, seed=seed, speed=options.speed).samples]
        samples = write_wav(options.out, chunks, synthesizer.sample_rate)
    else:
        request = SpeechRequest(
            text=sys.stdin.read() if options.text == "-" else options.text,
            voice=voice,
            mode=options.mode,
            instruction=options.instruction,
            seed=seed,
            speed=options.speed,
        )
        rate = synthesizer.config.token_rate
        with tqdm(unit=" s", unit_scale=1 / rate, desc="speech", disable=None) as bar:

            def advance(_token: int) -> None:
                bar.update(1)

            if options.stream:
                chunks = _timed(synthesizer.stream(request, on_token=advance), began)
            else:
                chunks = [synthesizer.speak(request, on_token=advance).samples]
            samples = write_wav(options.out, chunks, synthesizer.sample_rate)
    spent, seconds = time.perf_counter() - began, samples / synthesizer.sample_rate
    factor = spent / seconds if seconds else float("inf")
    print(f"{options.out}: {seconds:.2f} s of audio in {spent:.2f} s (real-time factor {factor:.2f}), seed {seed}")
    return 0


def _voice(synthesizer: Synthesizer, options: argparse.Namespace) -> VoicePrompt:
    if options.prompt is not None and options.voice is not None:
        raise InputError("voice", "both --voice and --prompt were given", "one of the two")
    if options.prompt is not None:
        encoded = synthesizer.encode_voice(options.prompt, options.transcript)
        for warning in encoded.quality.warnings:
            print(f"prompt: {warning}", file=sys.stderr)
        return encoded.prompt
    if options.voice is None:
        raise InputError("voice", "no voice was given", f"--prompt FILE, or --voice with one of: {_names(synthesizer)}")
    return synthesizer.voice(options.voice)


def _names(synthesizer: Synthesizer) -> str:
    return ", ".join(sorted(synthesizer.voices)) or "(this checkpoint has no saved voices)"


def _timed(chunks: Iterator[FloatArray], began: float) -> Iterator[FloatArray]:
    first = True
    for chunk in chunks:
        if first:
            print(f"first audio after {time.perf_counter() - began:.2f} s", file=sys.stderr)
            first = False
        yield chunk


if __name__ == "__main__":
    sys.exit(main())
