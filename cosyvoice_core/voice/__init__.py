"""Voices: what the model keeps of a recording, how it is obtained, and files that hold it."""
