"""CosyVoice's own gRPC service: its protocol, what is generated from it, and the door."""
