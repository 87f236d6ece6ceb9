"""Load tests that measure the service as a listener hears it, from outside and by the client's clock alone."""
