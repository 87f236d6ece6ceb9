"""Measurements of the service and of what it runs."""
