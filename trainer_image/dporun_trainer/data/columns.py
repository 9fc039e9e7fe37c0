"""Names of columns that both the reading of tables and the formats know."""

CANDIDATES = ("responses", "completions", "answers", "generations", "candidates")
"""Lists of several responses to a prompt."""
CANDIDATE_SCORES = ("scores", "ratings", "rewards", "rating", "score")
"""Lists of their scores, where they stand beside."""
CANDIDATE_RANKS = ("ranks", "rank", "ranking")
"""Lists of their ranks, likewise."""
