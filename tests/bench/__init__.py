"""Tests of cosyvoice_core/bench."""
