"""What keys may use in all, counted in one place for all ingress replicas."""
