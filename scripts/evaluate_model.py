"""Evaluate an adapter or merged model on preference pairs: ``dporun-trainer evaluate`` under its familiar name.

python scripts/evaluate_model.py --model DIR --test FILE.jsonl --output DIR
"""

import sys

from dporun_trainer.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
