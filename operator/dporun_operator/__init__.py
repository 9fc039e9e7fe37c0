"""The DPORun operator: turns DPORun resources into Jobs, and Jobs into status."""
