"""Trains the demo voice: a small checkpoint in the official layout whose only teacher is espeak-ng."""
