"""Measurements of the model core on the device at hand."""
