"""Voices that callers have saved: how they are named, written, kept and found. Knows neither HTTP nor the stages."""
