"""Versions of the packages that decide a run's result."""

from importlib import metadata

PACKAGES = ("accelerate", "boto3", "datasets", "deepspeed", "dporun", "peft", "torch", "transformers", "trl")


def package_versions() -> dict[str, str]:
    """Version of each of PACKAGES that is installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
