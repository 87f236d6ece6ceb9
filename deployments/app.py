"""The application: five deployments, wired from typed arguments. Options of each stand in the Serve config.

Serve turns the config's `args` into `AppArgs` by the annotation of `build`, which it reads as an object; so this module
must not postpone the evaluation of annotations.
"""

from ray.serve import Application

from deployments.args import AppArgs
from deployments.flow_decoder import FlowDecoder
from deployments.ingress.deployment import Ingress
from deployments.speech_lm.deployment import SpeechLM
from deployments.vocoder import Vocoder
from deployments.voice_encoder import VoiceEncoder


def build(args: AppArgs) -> Application:
    """Ingress pulls audio from Vocoder, which pulls mel from FlowDecoder, which pulls tokens from SpeechLM."""
    speech_lm = SpeechLM.bind(args)
    flow_decoder = FlowDecoder.bind(args, speech_lm)
    vocoder = Vocoder.bind(args, flow_decoder)
    return Ingress.bind(args, VoiceEncoder.bind(args), speech_lm, flow_decoder, vocoder)
