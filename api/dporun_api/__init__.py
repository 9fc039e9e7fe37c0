"""What the parts of DPORun share: operator, trainer and command line import it, and never each other.

Documents: ``v1alpha1`` is the resource that a user writes, ``run_config`` what the trainer is given, ``results`` what
it reports. Agreements: ``pod`` is how a trainer pod is started and asked, ``run_folder`` names its files.
Nothing here does input or output (``files`` apart), and nothing needs more than pydantic.
"""
