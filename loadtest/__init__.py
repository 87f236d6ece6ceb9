"""Load tests that measure the service as a listener hears it; nothing is here yet."""
