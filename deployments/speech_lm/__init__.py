"""The speech-token language model as a stage."""
