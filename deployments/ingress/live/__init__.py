"""The live door: text in pieces in, audio out, on one WebSocket."""
