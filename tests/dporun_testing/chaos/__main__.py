"""``make chaos``: break things for some minutes, let everything settle, and look at every run."""

import argparse
import random
import sys

from dporun_testing.chaos.loop import Course, rage

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    arguments = parser.parse_args()
    sys.exit(1 if rage(Course(arguments.minutes * 60, arguments.runs, arguments.seed)).wrong else 0)
