"""The contract between operator and trainer: documents and names, no behaviour and no heavy imports.

``RunConfig`` goes in; ``Progress`` (while a pod runs) and ``Outcome`` (when it ends) come out. ``layout`` names the
files in between.
"""
