"""Where the tests find what they test."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
CHART = ROOT / "charts" / "dporun-operator"
CRD = ROOT / "crds" / "dporuns.dporun.io.yaml"
DEVCLUSTER = ROOT / "hack" / "devcluster"
TINY = ROOT / "examples" / "tiny"
UNHEALTHY = ROOT / "examples" / "unhealthy"

REFUSED = sorted((TESTS / "api" / "cases" / "refused").glob("*.yaml"))
"""Manifests that the API server and the command line refuse, each for one reason."""
