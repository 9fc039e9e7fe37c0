"""The way out: prune, upload, verify, and bring an archived run back."""
