"""A real single-node Kubernetes cluster on this machine, started and stopped process by process."""
