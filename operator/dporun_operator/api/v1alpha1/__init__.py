"""``dporun.io/v1alpha1``: DPORunSpec (what the user asks for) and DPORunStatus (where it stands)."""

from dporun_operator.api.v1alpha1.spec import DPORunSpec
from dporun_operator.api.v1alpha1.status import DPORunStatus

__all__ = ["DPORunSpec", "DPORunStatus"]
