"""What each patch of a frame is expected to gain under a judge that is seldom asked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autogaze.grid import Indices

# Shape letters: P patches of a frame, K scales, C patches that were tried, F kinds of promises.

Values = NDArray[np.float64]

MEMORY = 0.95
"""Share of what was learned that still counts a gaze later."""
POOLED = 0.02
"""Weight of what all scales say together in what is believed of each, as a share of all that was seen."""
KEPT = 0.8
"""How much of what a patch gained beyond expectation it gains again, before that was seen."""


class Expectations:
    """Learns for one clip how promises come true.

    *Promises* are cheap guesses at the gain of a patch. Gains are a weighted sum of them, with weights for each scale
    that are fitted to the patches that were tried lately (ridge regression towards the weights of all scales); and a
    patch that gained more or less than that does so again to some degree, which is learned as well. So a patch that was
    tried before is believed to gain what it gained then, corrected by how its promises have changed since, as in lazy
    greedy maximisation (Minoux 1978); one that never was, what its scale gains for such promises.
    """

    def __init__(self, scale_P: Indices, *, kinds: int) -> None:
        scales, patches = int(scale_P.max()) + 1, len(scale_P)
        self._scale_P = scale_P
        # Of each patch what it gained when it was tried last, and what it promised then.
        self._gain_P, self._then_PF, self._tried_P = (
            np.zeros(patches),
            np.ones((patches, kinds)),
            np.zeros(patches, bool),
        )
        # Sums over tries of promisesᵀ promises and of promises · gain, per scale.
        self._squares_KFF, self._products_KF = np.zeros((scales, kinds, kinds)), np.zeros((scales, kinds))
        self._again = np.array([KEPT, 1.0]) * 1e-6  # Σ surprise then · surprise now, Σ surprise then²

    def gains(self, promise_PF: Values) -> Values:
        """(P,) what each patch is expected to gain, given what it promises now."""
        weight_KF = self._weights()
        gains_P: Values = self._sum(weight_KF, promise_PF) + self._kept * self._surprise(weight_KF, promise_PF)
        return gains_P

    def learn(self, patches: Indices, *, gain_C: Values, promise_PF: Values) -> None:
        """Patches were tried in one gaze."""
        weight_KF, scale_C = self._weights(), self._scale_P[patches]
        unit = max(float(np.abs(gain_C).max()), 1e-12)  # gains shrink a hundredfold, and every gaze counts alike
        known_C = self._tried_P[patches]
        before_C = self._surprise(weight_KF, promise_PF)[patches] / unit
        now_C = (gain_C - self._sum(weight_KF, promise_PF)[patches]) / unit
        self._again *= MEMORY
        self._again += [(before_C * now_C)[known_C].sum(), (before_C**2)[known_C].sum()]
        x_CF = promise_PF[patches] / unit
        self._squares_KFF *= MEMORY
        self._products_KF *= MEMORY
        np.add.at(self._squares_KFF, scale_C, x_CF[:, :, None] * x_CF[:, None])
        np.add.at(self._products_KF, scale_C, x_CF * (gain_C / unit)[:, None])
        self._gain_P[patches], self._then_PF[patches], self._tried_P[patches] = gain_C, promise_PF[patches], True

    @property
    def _kept(self) -> float:
        return float(np.clip(self._again[0] / self._again[1], 0.0, 1.0))

    def _sum(self, weight_KF: Values, promise_PF: Values) -> Values:
        gains_P: Values = (weight_KF[self._scale_P] * promise_PF).sum(1)
        return gains_P

    def _surprise(self, weight_KF: Values, promise_PF: Values) -> Values:
        """(P,) what each patch gained beyond its promises when it was tried, less where it promises less by now."""
        size_P, then_P = np.abs(promise_PF).sum(1), np.abs(self._then_PF).sum(1)
        faded_P = np.minimum(1.0, size_P / np.maximum(then_P, 1e-12))
        surprise_P: Values = np.where(
            self._tried_P, faded_P * (self._gain_P - self._sum(weight_KF, self._then_PF)), 0.0
        )
        return surprise_P

    def _weights(self) -> Values:
        """(K, F) what a unit of each promise adds to the gain."""
        kinds = self._squares_KFF.shape[-1]
        squares_FF, products_F = self._squares_KFF.sum(0), self._products_KF.sum(0)
        doubt_FF = 1e-3 * (np.trace(squares_FF) + 1e-9) * np.eye(kinds)
        pooled_F = np.linalg.solve(squares_FF + doubt_FF, products_F + doubt_FF @ np.full(kinds, 1 / kinds))
        ridge_FF = POOLED * squares_FF + doubt_FF
        weight_KF: Values = np.linalg.solve(
            self._squares_KFF + ridge_FF, (self._products_KF + ridge_FF @ pooled_F)[..., None]
        )[..., 0]
        return weight_KF
