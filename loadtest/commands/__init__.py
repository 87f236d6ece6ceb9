"""The commands of `python -m loadtest`, one file each: `add` declares its arguments, `main` runs it."""
