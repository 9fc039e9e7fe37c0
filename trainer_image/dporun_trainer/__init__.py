"""What runs inside the pods of a DPORun: prepare, train, evaluate, archive."""
