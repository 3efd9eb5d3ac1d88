"""Closed forms for a single layer of linear self-attention."""

import numpy as np

from icl.tasks import SparseLinear


def optimal_one_step(task: SparseLinear) -> np.ndarray:
    """Γ* (d, d), with which x_qᵀ Γ b, b = (1/n) Σ x_i y_i, has the least mean excess risk.

    Theorem 1 of Mahankali et al. (2024) and its extension to other covariances, for any prior
    of second moment Ω = E[w wᵀ]. The mean excess risk of the weights Γ b is

        tr Σ (Γ M Γᵀ − 2 Γ C + Ω),   C = E[b wᵀ] = Σ Ω,   M = E[b bᵀ].

    Of the n² terms of M the n(n−1) with two different examples give Σ Ω Σ each, and those
    with one give E[x xᵀ Ω x xᵀ] + σ² Σ = 2 Σ Ω Σ + (tr(ΩΣ) + σ²) Σ by Isserlis' theorem. So
    M = (n+1)/n Σ Ω Σ + (tr(ΩΣ) + σ²)/n Σ, and the gradient in Γ vanishes at Γ* = Cᵀ M⁻¹.
    All priors of this book have Ω = (s/d) I.
    """
    sigma, n = task.sigma, task.n
    omega = task.s / task.d * np.eye(task.d)
    signal = sigma @ omega @ sigma
    moment = (n + 1) / n * signal + (np.trace(omega @ sigma) + task.noise**2) / n * sigma
    return omega @ sigma @ np.linalg.inv(moment)
