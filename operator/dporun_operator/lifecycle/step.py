"""Step: how a part of a run's life stands."""

from enum import Enum, auto


class Step(Enum):
    """What a step returns; ``decide`` goes on accordingly."""

    DONE = auto()
    """Nothing is left to do: the next step may begin."""
    WAITING = auto()
    """Something is under way: look again when something happens."""
    GAVE_UP = auto()
    """It cannot be done: the run has failed, what is left is to archive and to close it."""
