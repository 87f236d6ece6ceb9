"""The application: five deployments, wired from typed arguments; where there are API keys also `Quotas`.

Options of each stand in the Serve config. Serve turns the config's `args` into `AppArgs` by the annotation of `build`,
which it reads as an object; so this module must not postpone the evaluation of annotations.
"""

from typing import Any

from ray import serve
from ray.serve import Application

from deployments.args import AppArgs
from deployments.flow_decoder import FlowDecoder
from deployments.ingress.deployment import Ingress
from deployments.ingress.keys import keys_are_set
from deployments.quotas.deployment import Quotas
from deployments.speech_lm.deployment import SpeechLM
from deployments.vocoder import Vocoder
from deployments.voice_encoder import VoiceEncoder

# A stream counts as one ongoing request for its whole life, so the limits are on concurrent utterances; a replica
# that is replaced must outlive its longest utterance. (An utterance that is cut nevertheless is replayed.)
_OPTIONS: dict[str, Any] = {
    "max_ongoing_requests": 64,
    "max_queued_requests": 256,
    "graceful_shutdown_timeout_s": 120,
    "graceful_shutdown_wait_loop_s": 0.5,
    "health_check_period_s": 2,
    "health_check_timeout_s": 30,
}

# Of the ingress a stream is a whole answer, which lasts as long as its listener listens, and nobody replays it. It
# needs no accelerator, so that there is room for the next one beside it.
_INGRESS_OPTIONS: dict[str, Any] = {"graceful_shutdown_timeout_s": 3600, "max_surge_percent": 100}
# One place that counts, with an open call for each answer of a caller that has quotas; those calls are told to its
# successor again, so nothing is gained by waiting for them.
_QUOTAS: dict[str, Any] = {
    "num_replicas": 1,
    "ray_actor_options": {"num_cpus": 0},
    "max_ongoing_requests": 100_000,
    "graceful_shutdown_timeout_s": 1,
    "health_check_period_s": 2,
}


def build(args: AppArgs) -> Application:
    """Ingress pulls audio from Vocoder, which pulls mel from FlowDecoder, which pulls tokens from SpeechLM."""
    speech_lm = _deployment(SpeechLM).bind(args)
    flow_decoder = _deployment(FlowDecoder).bind(args, speech_lm)
    vocoder = _deployment(Vocoder).bind(args, flow_decoder)
    voice_encoder = _deployment(VoiceEncoder).bind(args)
    ingress = _deployment(serve.ingress()(Ingress), name="Ingress").options(**_INGRESS_OPTIONS)
    if not keys_are_set(args.security):
        return ingress.bind(args, voice_encoder, speech_lm, flow_decoder, vocoder)
    return ingress.bind(args, voice_encoder, speech_lm, flow_decoder, vocoder, quotas())


def quotas() -> Application:
    """What counts for all ingress replicas of an application."""
    return serve.deployment(Quotas, name="Quotas", **_QUOTAS).bind()


def _deployment(stage: type, name: str | None = None) -> Any:
    return serve.deployment(stage, name=name or stage.__name__, **_OPTIONS)
