"""How each warning sign of the specification shows in the curves of a run. Pure, and cheap enough for every log.

A module per illness; each rule is a function that returns the steps and values which show its sign, or None. Losses are
measured in units of the untrained model's (``Measurements.untrained``, ln 2 for the sigmoid loss). The training loss is
a mean over few pairs and very noisy, so rules look at means of several logs and at their standard error. The
validation loss is always measured on the same pairs, so small changes of it count.
"""

Evidence = str | None
"""Steps and values that show a sign, each of which is in the log; None when they do not."""
