"""What the curves and the results mean: health, remedies, verdict. Pure, without a model."""
