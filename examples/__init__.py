"""Small programs that use the service in the ways people do; each says at its top how to run it."""
