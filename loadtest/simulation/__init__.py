"""A day of the service on machines that are not there: its own scaling policy against recorded costs."""
