"""The documents about a run for people: report.html, report.png and the model card."""
