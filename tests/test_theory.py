"""The optimal single step: against Monte Carlo and against the special cases of the paper."""

import numpy as np
import pytest
import torch

from icl.contexts import draw
from icl.estimators import OneStep
from icl.risk import squared_error
from icl.tasks import SparseLinear
from icl.theory import optimal_one_step


@pytest.mark.parametrize("values", ["gaussian", "sphere"])
def test_no_other_matrix_does_better(task, values):
    task = SparseLinear(4, 2, task.n, task.noise, values, task.covariance)
    contexts = draw(task, 400_000, "evaluate", seed=0)
    # Γ* is a regression of w on b: fitted on many contexts, least squares must find it.
    fitted = torch.linalg.lstsq(contexts.xy, contexts.w).solution.T
    best = torch.from_numpy(optimal_one_step(task))
    assert torch.allclose(fitted, best, atol=0.01 * best.abs().max().item())
    risk = squared_error(OneStep(task).weights(contexts), contexts).mean()
    # tr(ΣΩ) − tr(Σ Γ* Σ Ω)
    sigma, omega = task.sigma, np.eye(4) / 2
    expected = np.trace(sigma @ omega) - np.trace(sigma @ best.numpy() @ sigma @ omega)
    assert risk.item() == pytest.approx(expected, rel=0.01)


def test_isotropic_data_give_one_rate():
    # E[w wᵀ] = I and Σ = I: one step at the rate n/(n + d + 1 + σ²) on the mean loss.
    task = SparseLinear(d=5, s=5, n=12, noise=0.6)
    assert np.allclose(optimal_one_step(task), 12 / (12 + 6 + 0.36) * np.eye(5))
