"""Formats of preference data: which one a source has, and how a row of it becomes preference pairs.

Pure functions of rows. A format is a module with the conversion of one row, and a line in recognise.py.
"""

from dporun_trainer.data.formats.reading import read_pairs
from dporun_trainer.data.formats.recognise import LOOKED_AT, Format, Options, recognise, recognise_first
from dporun_trainer.data.formats.transcript import for_template

__all__ = ["LOOKED_AT", "Format", "Options", "for_template", "read_pairs", "recognise", "recognise_first"]
