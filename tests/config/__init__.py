"""Files that deploy the service: Serve configs, Kubernetes manifests, images, and the page about them."""
