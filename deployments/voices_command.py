"""`python -m deployments voices`: the store of voices from the command line, the service may run or not.

Works on the store itself, so whoever may write there may do everything; private voices are OWNER:NAME.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.errors import CheckpointError, InputError
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.tokenizer import Tokenizer
from cosyvoice_core.voice.encoder import VoiceEncoder
from cosyvoice_core.voice.saved import Flavour, load_saved_voices, save_voices
from deployments.args import AppArgs
from deployments.local import DeployError, read_config
from deployments.voices.names import ALLOWED, check_full_name
from deployments.voices.record import VoiceRecord, new_record
from deployments.voices.refusal import VoiceRefusedError
from deployments.voices.store import VoiceStore

Value = TypeVar("Value")

_FAILURES = (InputError, CheckpointError, VoiceRefusedError, DeployError, OSError, ValueError)


def add_voices_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], config: Path) -> None:
    """The command and its options; config: the Serve config that is read if none is named."""
    voices = commands.add_parser("voices", help="list, add, remove, import or export saved voices")
    actions = voices.add_subparsers(dest="action", required=True)

    def action(name: str, meaning: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=meaning)
        parser.add_argument("--store", help="folder as a path or fsspec URL, instead of the config's voices.url")
        parser.add_argument("--config", type=Path, default=config, help="Serve config (YAML) that says store and model")
        parser.add_argument("--model", help="checkpoint directory or model id, instead of the config's")
        return parser

    action("list", "name, seconds of prompt, day and first words of each voice; damaged ones say so")
    add = action("add", "save a voice from a recording")
    add.add_argument("name", help=ALLOWED)
    add.add_argument("audio", type=Path, help="0.5 to 30 s of speech as WAV, FLAC, MP3, OGG or M4A")
    add.add_argument("--transcript", default="", help="what is said in it; better with it than without")
    add.add_argument("--consent", default="", help="a note on who agreed to what; kept with the voice")
    remove = action("remove", "remove voices")
    remove.add_argument("names", nargs="+", metavar="NAME")
    read = action("import", "save the voices of a spk2info.pt, in whatever flavour it is")
    read.add_argument("file", type=Path)
    read.add_argument("names", nargs="*", metavar="NAME", help="of the file's voices; all if none is named")
    read.add_argument("--owner", help="make them private voices of this API key")
    for parser in (add, read):
        parser.add_argument("--overwrite", action="store_true", help="replace voices of the same name")
    write = action("export", "write voices into a spk2info.pt")
    write.add_argument("file", type=Path)
    write.add_argument("names", nargs="*", metavar="NAME", help="all if none is named")
    write.add_argument(
        "--flavour",
        type=Flavour,
        choices=list(Flavour),
        default=Flavour.ORIGINAL,
        help="original: as CosyVoice saves them; vector: for its mode sft alone; text: as async_cosyvoice has them",
    )


def run_voices(options: argparse.Namespace) -> int:
    """Run it; the exit status."""
    try:
        args = AppArgs.model_validate(read_config(options.config)["applications"][0].get("args") or {})
        if options.model:
            args = args.model_copy(update={"model": options.model})
        place = options.store or args.voices.place()
        if place is None:
            print(f"No store: {options.config} has no voices.url under args; give --store", file=sys.stderr)
            return 2
        directory = CheckpointDirectory(resolve_model(args.model_source(), progress=False))
        store = VoiceStore(place, read_model_config(directory.path).flow)
        return _ACTIONS[options.action](options, store, directory, args)
    except _FAILURES as error:
        print(error, file=sys.stderr)
        return 1


def _list(_options: argparse.Namespace, store: VoiceStore, _directory: CheckpointDirectory, _args: AppArgs) -> int:
    damaged = False
    for entry, found in sorted(store.records(list(store.entries().values())).items(), key=lambda pair: pair[0].name):
        if isinstance(found, VoiceRecord):
            about = f"{found.tokens / 25:5.1f} s  {found.created_at:%Y-%m-%d}  {found.transcript[:50]}"
        elif isinstance(found, FileNotFoundError):
            continue
        else:
            damaged, about = True, f"DAMAGED: {found}"
        print(f"{entry.name:30} {about}".rstrip())
    return int(damaged)


def _add(options: argparse.Namespace, store: VoiceStore, directory: CheckpointDirectory, args: AppArgs) -> int:
    name = check_full_name(options.name)
    encoded = VoiceEncoder.from_directory(directory.path, threads=args.voice_encoder.threads).encode(options.audio)
    prompt = encoded.prompt
    if options.transcript.strip():
        tokenizer = Tokenizer.from_directory(directory.tokenizer)
        text = TextFrontEnd(tokenizer, args.text_profile, Lexicon.from_mapping(args.lexicon), args.split.limits())
        transcript = text.normalise(options.transcript)
        prompt = replace(prompt, transcript=transcript, transcript_ids=np.asarray(text.encode(transcript), np.int32))
    record = new_record(name, prompt, consent=options.consent, quality=encoded.quality)
    store.put(record, prompt, overwrite=options.overwrite)
    print(f"{name}: saved, {encoded.quality.duration_s:.1f} s")
    for warning in encoded.quality.warnings:
        print(f"{name}: {warning}", file=sys.stderr)
    return 0


def _remove(options: argparse.Namespace, store: VoiceStore, _directory: CheckpointDirectory, _args: AppArgs) -> int:
    status = 0
    for name in options.names:
        if store.remove(name):
            print(f"{name}: removed")
        else:
            print(f"{name}: there is no such voice", file=sys.stderr)
            status = 1
    return status


def _import(options: argparse.Namespace, store: VoiceStore, directory: CheckpointDirectory, _args: AppArgs) -> int:
    tokenizer = Tokenizer.from_directory(directory.tokenizer)
    flow = read_model_config(directory.path).flow
    voices = _chosen(load_saved_voices(options.file, tokenizer.encode, flow=flow), options.names, str(options.file))
    prefix = f"{options.owner}:" if options.owner else ""
    # A wrong name is told before the first voice is saved.
    named = {check_full_name(f"{prefix}{name}"): voice for name, voice in voices.items()}
    for name, voice in named.items():
        store.put(new_record(name, voice), voice, overwrite=options.overwrite)
        print(f"{name}: saved, {len(voice.speech_tokens) / 25:.1f} s")
    return 0


def _export(options: argparse.Namespace, store: VoiceStore, _directory: CheckpointDirectory, _args: AppArgs) -> int:
    entries = _chosen(store.entries(), options.names, "the store")
    voices: dict[str, VoicePrompt] = {}
    for entry, record in store.records(list(entries.values())).items():
        if not isinstance(record, VoiceRecord):
            raise InputError("NAME", f"the voice {entry.name!r} cannot be read ({record})", "others")
        voices[entry.name] = store.prompt(entry, record)
    save_voices(options.file, voices, options.flavour)
    print(f"{options.file}: {len(voices)} voices")
    return 0


def _chosen(found: Mapping[str, Value], names: list[str], place: str) -> dict[str, Value]:
    """Those of these names, all without names. Raises InputError for one that is not there."""
    for name in names:
        if name not in found:
            raise InputError("NAME", f"there is no voice {name!r} in {place}", ", ".join(sorted(found)[:20]))
    return {name: found[name] for name in names or found}


_ACTIONS = {"list": _list, "add": _add, "remove": _remove, "import": _import, "export": _export}
