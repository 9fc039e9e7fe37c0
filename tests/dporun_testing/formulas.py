"""The losses of preference training over a whole set of pairs, in float64 and written from their papers.

They share nothing with TRL or the trainer, so that both can be held against them. Signs and names are those of the
papers, not of any program: r = beta log(policy / reference), w is the chosen response and l the rejected one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Arrays of one value per pair: log-probabilities summed over the tokens of a response, and numbers of tokens."""

    chosen: Any
    rejected: Any
    ref_chosen: Any
    ref_rejected: Any
    chosen_tokens: Any
    rejected_tokens: Any

    @classmethod
    def of(cls, rows: Any) -> "Scores":
        """From one tuple of the six values per pair."""
        return cls(*np.asarray(rows, dtype=np.float64).T)

    @property
    def ratios(self) -> tuple[Any, Any]:
        """log(policy / reference) of the response that won and of the one that lost."""
        return self.chosen - self.ref_chosen, self.rejected - self.ref_rejected

    @property
    def ratios_per_token(self) -> tuple[Any, Any]:
        """The same, divided by the length of the response."""
        won, lost = self.ratios
        return won / self.chosen_tokens, lost / self.rejected_tokens


def loss(name: str, rows: Scores, *, beta: float, smoothing: float = 0.0) -> float:
    """One of the losses over all rows."""
    return float(np.mean(_FORMULAS[name](rows, beta, smoothing)))


def _log_sigmoid(x: Any) -> Any:
    return -np.logaddexp(0, -x)


def _sigmoid(x: Any) -> Any:
    return (1 + np.tanh(x / 2)) / 2


def _dpo(rows: Scores, beta: float, smoothing: float) -> Any:
    """Rafailov et al. 2023, eq. 7; with label smoothing Mitchell 2023 (cDPO), eq. 3."""
    won, lost = rows.ratios
    x = beta * won - beta * lost
    return -(1 - smoothing) * _log_sigmoid(x) - smoothing * _log_sigmoid(-x)


def _slic(rows: Scores, beta: float, _: float) -> Any:
    """Zhao et al. 2023: the hinge of the normalised likelihood margin, in units of 1/beta."""
    won, lost = rows.ratios
    return np.maximum(0, 1 - beta * (won - lost))


def _ipo(rows: Scores, tau: float, _: float) -> Any:
    """Azar et al. 2023, eq. 17, with log-ratios per token as its authors compute them."""
    won, lost = rows.ratios_per_token
    return np.square(won - lost - 1 / (2 * tau))


def _exo(rows: Scores, beta: float, smoothing: float) -> Any:
    """Ji et al. 2024, eq. 16: KL(p || q) of the policy's preference p and the smoothed label q."""
    won, lost = rows.ratios
    p = np.stack([_sigmoid(beta * (won - lost)), _sigmoid(beta * (lost - won))])
    q = np.array([[1 - smoothing], [smoothing]])
    return (p * np.log(p / q)).sum(axis=0)


def _nca(rows: Scores, beta: float, _: float) -> Any:
    """Chen et al. 2024, for two responses of which one has all the preference."""
    won, lost = rows.ratios
    return -_log_sigmoid(beta * won) - (_log_sigmoid(-beta * won) + _log_sigmoid(-beta * lost)) / 2


def _robust(rows: Scores, beta: float, smoothing: float) -> Any:
    """Chowdhury et al. 2024: the estimate of the loss with true labels, without bias when some are flipped."""
    won, lost = rows.ratios
    clean, flipped = -_log_sigmoid(beta * (won - lost)), -_log_sigmoid(beta * (lost - won))
    return ((1 - smoothing) * clean - smoothing * flipped) / (1 - 2 * smoothing)


def _bco(rows: Scores, beta: float, _: float) -> Any:
    """Jung et al. 2024: a classifier of rewards as good or bad, with the threshold 0."""
    won, lost = rows.ratios
    return -_log_sigmoid(beta * won) - _log_sigmoid(-beta * lost)


def _sppo(rows: Scores, beta: float, _: float) -> Any:
    """Wu et al. 2024, eq. 4.7 with win probabilities 1 and 0, and eta = 1 / beta."""
    won, lost = rows.ratios
    return np.square(won - (1 - 1 / 2) / beta) + np.square(lost - (0 - 1 / 2) / beta)


def _aot(rows: Scores, beta: float, smoothing: float) -> Any:
    """Melnyk et al. 2024, paired: the quantiles of the policy's margins against those of the reference's."""
    quantiles = np.sort(rows.chosen - rows.rejected) - np.sort(rows.ref_chosen - rows.ref_rejected)
    return -(1 - smoothing) * _log_sigmoid(beta * quantiles) - smoothing * _log_sigmoid(-beta * quantiles)


def _aot_unpaired(rows: Scores, beta: float, smoothing: float) -> Any:
    """Melnyk et al. 2024, unpaired: the quantiles of chosen log-ratios against those of rejected ones."""
    won, lost = rows.ratios
    quantiles = np.sort(won) - np.sort(lost)
    return -(1 - smoothing) * _log_sigmoid(beta * quantiles) - smoothing * _log_sigmoid(-beta * quantiles)


def _apo_zero(rows: Scores, beta: float, _: float) -> Any:
    """D'Oosterlinck et al. 2024, eq. 7, plus 1."""
    won, lost = rows.ratios
    return 1 - _sigmoid(beta * won) + _sigmoid(beta * lost)


def _apo_down(rows: Scores, beta: float, _: float) -> Any:
    """D'Oosterlinck et al. 2024, eq. 8, plus 1."""
    won, lost = rows.ratios
    return 1 + _sigmoid(beta * won) - _sigmoid(beta * (won - lost))


def _discopop(rows: Scores, beta: float, _: float) -> Any:
    """Lu et al. 2024, eq. 5 (log-ratio modulated loss), at temperature 0.05."""
    won, lost = rows.ratios
    x = beta * (won - lost)
    share = _sigmoid(x / 0.05)
    return -(1 - share) * _log_sigmoid(x) + share * np.exp(-x)


def _sft(rows: Scores, _beta: float, _smoothing: float) -> Any:
    """Cross-entropy of the chosen responses, per token of all of them."""
    return -rows.chosen.sum() / rows.chosen_tokens.sum()


def _normalised(rows: Scores, beta: float, _: float) -> Any:
    """Eq. 7 of Rafailov et al. 2023 with log-ratios per token (Lambert et al. 2024, Tulu 3)."""
    won, lost = rows.ratios_per_token
    return -_log_sigmoid(beta * (won - lost))


_FORMULAS: dict[str, Callable[[Scores, float, float], Any]] = {
    "sigmoid": _dpo,
    "hinge": _slic,
    "ipo": _ipo,
    "exo_pair": _exo,
    "nca_pair": _nca,
    "robust": _robust,
    "bco_pair": _bco,
    "sppo_hard": _sppo,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sft": _sft,
    "sigmoid_norm": _normalised,
}
