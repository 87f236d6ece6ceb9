"""Sound in and out: decoding, resampling, features of a waveform, WAV. Knows no model."""
