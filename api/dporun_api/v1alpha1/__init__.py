"""``dporun.io/v1alpha1``: DPORunSpec (what the user asks for) and DPORunStatus (where it stands)."""

from typing import Final

GROUP: Final = "dporun.io"
VERSION: Final = "v1alpha1"
KIND: Final = "DPORun"
PLURAL: Final = "dporuns"
API_VERSION: Final = f"{GROUP}/{VERSION}"
