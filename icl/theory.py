"""Closed forms for a single layer of linear self-attention that answers x_qᵀ Γ b.

b = (1/n) Σ x_i y_i, and w are the weights of the best linear predictor. Source: Mahankali et al.
(2024), who prove what the optimum is on Gaussian data; here for any Σ and any prior.
"""

import numpy as np

from icl.contexts import Task


def moments(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """C = E[b wᵀ] and M = E[b bᵀ], both (d, d), which are all that a risk depends on.

    Given the function, E[x y] = Σ w: the covariance of x times the weights of the best linear
    predictor. So C = Σ Ω. Of the n² terms of n² b bᵀ, the n (n−1) with two different examples
    are independent given the function and have the mean Σ Ω Σ each, those with one E[y² x xᵀ]:

        M = (n−1)/n Σ Ω Σ + (1/n) E[y² x xᵀ].

    For linear responses that is (n+1)/n Σ Ω Σ + (tr(ΩΣ) + σ²)/n Σ.
    """
    cross = task.sigma @ task.omega
    return cross, ((task.n - 1) * cross @ task.sigma + task.label_moment) / task.n


def one_step_risk(task: Task, gamma: np.ndarray) -> np.ndarray:
    """Exact mean excess risk of the weights Γ b, for matrices Γ (..., d, d).

    E (Γb − w)ᵀ Σ (Γb − w) = tr Σ (Γ M Γᵀ − 2 Γ C + Ω).
    """
    cross, second = moments(task)
    inner = gamma @ second @ gamma.swapaxes(-1, -2) - 2 * gamma @ cross + task.omega
    return np.trace(task.sigma @ inner, axis1=-2, axis2=-1)


def optimal_one_step(task: Task) -> np.ndarray:
    """Γ* (d, d), which has the least mean excess risk: the gradient 2 Σ (Γ M − Cᵀ) vanishes.

    Γ* = Cᵀ M⁻¹, with the risk tr(ΣΩ) − tr(Σ Γ* C). For Σ = Ω = I it is one gradient step of
    rate n/(n + d + 1 + σ²) on the mean loss, for Ω = Σ⁻¹ that rate times Σ⁻¹; for a family of
    responses f that no rotation changes it is η I with

        η = E|u|² / (E[y² |x|²]/n + (n−1)/n E|u|²),  u = E[x f(x) | f].
    """
    cross, second = moments(task)
    return np.linalg.solve(second, cross).T
