"""Clients of the service's doors, one file each behind the protocol in `door.py`."""
