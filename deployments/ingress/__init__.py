"""The doors of the service and what stands behind all of them: limits, voices, playback order, replay."""
