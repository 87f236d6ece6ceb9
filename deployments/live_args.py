"""Arguments that a running replica takes over from its deployment's `user_config`, without being replaced.

`user_config` has the shape of the application's `args` and holds only what differs from them. Serve replaces a replica
whose `reconfigure` fails, running streams or not; so what is wrong is refused as a whole, noted, and told in `/health`,
and the replica goes on as it was. Knows no Serve.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from pydantic import ValidationError

from deployments.args import AppArgs

logger = logging.getLogger("ray.serve")

CHANGEABLE: Mapping[str, tuple[str, ...]] = {
    "Ingress": (
        "playback",
        "lexicon",
        "admission",
        "limits.max_text_chars",
        "limits.max_unstreamed_chars",
        "limits.max_instruction_chars",
        "limits.max_lexicon_entries",
        "limits.max_script_lines",
        "limits.max_script_chars",
    ),
    "VoiceEncoder": ("voice_cache_bytes",),
    "SpeechLM": ("hops.max_tokens", "lm.max_paused_sequences", "lm.text_idle_timeout_s"),
    "FlowDecoder": ("flow.max_batch", "flow.patience_s"),
    "Vocoder": (),
}
"""Of each deployment what may stand in its `user_config`: an argument, or a group of them."""


class LiveArgs:
    """The arguments of one replica as they are now; `problem` says why the latest `user_config` was refused."""

    def __init__(self, deployment: str, args: AppArgs) -> None:
        self.args = args
        self.problem = ""
        self._deployment = deployment
        self._deployed = args

    def take(self, user_config: object, apply: Callable[[AppArgs], None] = lambda _args: None) -> None:
        """Make `user_config` count from now on, what it leaves out being as deployed; or note why not.

        `apply` puts the arguments into effect; it may refuse them by a ValueError before it has changed anything.
        """
        try:
            args = changed(self._deployment, self._deployed, user_config)
            apply(args)
        except ValueError as error:
            self.problem = _told(error)
            logger.error("%s: user_config was refused, the settings stay as they were: %s", self._deployment, error)
        else:
            self.args, self.problem = args, ""
            logger.info("%s: user_config taken: %s", self._deployment, user_config)


def changed(deployment: str, deployed: AppArgs, user_config: object) -> AppArgs:
    """`deployed` with what a `user_config` says. Raises ValueError for what is wrong or needs a new replica."""
    if not isinstance(user_config, Mapping):
        raise ValueError(f"user_config: expected a mapping like `args`, got {type(user_config).__name__}")
    allowed = CHANGEABLE[deployment]
    for name in _names(user_config):
        if not any(name == one or name.startswith(f"{one}.") for one in allowed):
            raise ValueError(
                f"user_config: {name} cannot be changed in a running {deployment} (allowed: "
                f"{', '.join(allowed) or 'nothing'}); change `args`, which replaces the replicas"
            )
    return AppArgs.model_validate(_merged(deployed.model_dump(), user_config))


def check_user_configs(application: Mapping[str, object]) -> None:
    """Raise ValueError for a wrong `user_config` in an application of a Serve config, before it is deployed."""
    args = AppArgs.model_validate(application.get("args") or {})
    deployments = application.get("deployments") or []
    assert isinstance(deployments, list)
    for deployment in deployments:
        if deployment.get("user_config") is not None and deployment["name"] in CHANGEABLE:
            changed(deployment["name"], args, deployment["user_config"])


def _names(config: Mapping[str, object], of: str = "") -> Iterator[str]:
    for name, value in config.items():
        # The lexicon is one argument, however many words it has.
        if isinstance(value, Mapping) and name != "lexicon":
            yield from _names(value, f"{of}{name}.")
        else:
            yield f"{of}{name}"


def _merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    found = dict(base)
    for name, value in over.items():
        known = found.get(name)
        nested = isinstance(known, Mapping) and isinstance(value, Mapping) and name != "lexicon"
        found[name] = _merged(known, value) if nested else value  # type: ignore[arg-type]
    return found


def _told(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"user_config: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
