"""Which calls are served now, which wait for a moment, and which are told to come back."""
