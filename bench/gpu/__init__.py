"""What a machine with a GPU proves of DPORun, in five scripts of at most ten minutes; README.md says how."""
