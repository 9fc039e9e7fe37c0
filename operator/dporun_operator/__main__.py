"""``dporun-operator``: runs the operator, configured by the environment (see ``settings``)."""

import sys

from dporun_api import logs
from dporun_operator.errors import InvalidSettingsError, NotHolderError
from dporun_operator.settings import Settings


def main() -> int:
    """Run the operator until SIGTERM or SIGINT.

    Returns:
        The exit status: 2 when the environment is wrong, 1 when another operator has taken the lease.

    """
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_level)
        from dporun_operator import app  # noqa: PLC0415  wrong settings are reported before the heavy imports

        app.run(settings)
    except InvalidSettingsError as error:
        print(f"dporun-operator: {error}", file=sys.stderr)
        return 2
    except NotHolderError as error:
        print(f"dporun-operator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
