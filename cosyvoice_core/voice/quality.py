"""How fit a recording is to be a voice prompt, by plain measures of level. Judges nothing that it cannot measure:
it does not know whether the sound is speech, one speaker or the right language.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cosyvoice_core.audio.decode import Waveform

SHORT_SECONDS = 2.0
CLIPPED_LEVEL = 0.999
CLIPPED_SHARE = 1e-3
SILENT_SHARE = 0.5
NOISY_DB = 15.0
QUIET_DBFS = -40.0
NARROW_RATE = 16000

_FRAME_SECONDS = 0.02
_SILENCE_BELOW_LOUDEST_DB = 40.0
_SILENCE_DBFS = -60.0
_LOUD_PERCENTILE, _QUIET_PERCENTILE = 95.0, 5.0
_QUANTISATION_POWER = (1.0 / 32768.0) ** 2 / 12.0


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Measures of one recording and what they warn of.

    duration_s; level_dbfs: level of the loud frames; clipping_share: samples at full scale; silence_share: frames of
    20 ms that lie 40 dB under the loud ones; snr_db: loud frames over quiet ones. Pauses are what shows the noise, so
    `snr_db` of a recording without any pause is too low.
    """

    duration_s: float
    level_dbfs: float
    clipping_share: float
    silence_share: float
    snr_db: float
    warnings: tuple[str, ...] = ()


def measure_quality(sound: Waveform) -> QualityReport:
    """Measure a decoded recording of at least 20 ms."""
    frame = max(1, round(_FRAME_SECONDS * sound.rate))
    count = len(sound.samples) // frame
    if count == 0:
        raise ValueError(f"need at least {frame} samples, got {len(sound.samples)}")
    frames = sound.samples[: count * frame].reshape(count, frame).astype(np.float64)
    # Means are taken off: a constant offset is no sound. The floor is what 16 bits can tell.
    power = frames.var(axis=1) + _QUANTISATION_POWER
    quiet, loud = np.percentile(power, [_QUIET_PERCENTILE, _LOUD_PERCENTILE])
    levels = 10.0 * np.log10(power)
    level = float(10.0 * np.log10(loud))
    silence = max(level - _SILENCE_BELOW_LOUDEST_DB, _SILENCE_DBFS)
    report = QualityReport(
        duration_s=sound.seconds,
        level_dbfs=level,
        clipping_share=float(np.mean(np.abs(sound.samples) >= CLIPPED_LEVEL)),
        silence_share=float(np.mean(levels < silence)),
        snr_db=float(10.0 * np.log10(loud / quiet)),
    )
    return replace(report, warnings=_warnings(report, sound.rate))


def _warnings(report: QualityReport, rate: int) -> tuple[str, ...]:
    found = (
        (report.duration_s < SHORT_SECONDS, f"short: {report.duration_s:.1f} s; 3 to 10 s make a better likeness"),
        (report.clipping_share > CLIPPED_SHARE, f"clipped: {report.clipping_share:.1%} of samples at full scale"),
        (report.silence_share > SILENT_SHARE, f"much silence: {report.silence_share:.0%} of the recording"),
        (report.level_dbfs < QUIET_DBFS, f"very quiet: {report.level_dbfs:.0f} dBFS"),
        (report.snr_db < NOISY_DB, f"noisy, or without a pause: loud over quiet parts is {report.snr_db:.0f} dB"),
        (rate < NARROW_RATE, f"narrow band: recorded at {rate} Hz"),
    )
    return tuple(text for holds, text in found if holds)
