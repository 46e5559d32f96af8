"""Statistics of AN's mixture weights lambda; docs/attention.md has the formulas."""

from typing import NamedTuple

import numpy as np
from scipy.special import entr


class Spread(NamedTuple):
    """The values v[i, c] of an affine parameter for image i and channel c.

    The variance of all values is std_over_images^2 + std_over_channels^2.

    Attributes:
        mean: over images and channels.
        std_over_images: root of the channels' mean variance over images; 0 for BN.
        std_over_channels: standard deviation over channels of the mean over images.
    """

    mean: float
    std_over_images: float
    std_over_channels: float


def effective_number(weights: np.ndarray) -> np.ndarray:
    """Returns how many of K components are in use: exp(entropy) of the weights' shares.

    Args:
        weights: [..., K], at least 0.

    Returns:
        Between 1 (one component has all the weight) and K (all have the same), [...]; 0 where all
        weights are 0.
    """
    exp_entropy = np.exp(entr(shares(weights)).sum(axis=-1))
    return np.where(weights.sum(axis=-1) > 0, exp_entropy, 0.0)


def shares(weights: np.ndarray) -> np.ndarray:
    """Divides weights [..., K] by their sum over K; 0 where that is 0."""
    weights = weights.astype(np.float64)
    total = weights.sum(axis=-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def variance_explained(
    lambdas: np.ndarray, labels: np.ndarray
) -> tuple[float | None, float | None]:
    """Returns which share of the variance of lambda the class explains, eta^2 and epsilon^2.

    Eta squared is biased upwards. Epsilon squared (Kelley, 1935) replaces both variances by their
    unbiased estimates, as the adjusted R^2 does. It may be below 0.

    Args:
        lambdas: [N, K]; variances are added up over K.
        labels: [N].

    Returns:
        Both are None if lambda does not vary or there is one class; epsilon squared also if each
        image has a class of its own.
    """
    values = lambdas.astype(np.float64)
    values -= values[0]  # exact zeros where all images have the same weights
    classes, members = np.unique(labels, return_inverse=True)
    n, num_classes = len(values), len(classes)
    total = np.square(values - values.mean(axis=0)).sum()
    if total == 0 or num_classes == 1:
        return None, None
    sums = np.zeros((num_classes, values.shape[1]))
    np.add.at(sums, members, values)
    means = sums / np.bincount(members)[:, None]
    within = np.square(values - means[members]).sum()
    eta_squared = float(1 - within / total)
    if n == num_classes:
        return eta_squared, None
    return eta_squared, float(1 - within / (n - num_classes) / (total / (n - 1)))


def affine_spread(lambdas: np.ndarray, vectors: np.ndarray) -> Spread:
    """Describes AN's effective scale or shift, lambda @ vectors, without computing it per image.

    Args:
        lambdas: [N, K]. A row of ones describes BN's.
        vectors: AN's weight or bias [K, C]; BN's [1, C].
    """
    values, vectors = lambdas.astype(np.float64), vectors.astype(np.float64)
    mean = values.mean(axis=0)
    covariance = (values - mean).T @ (values - mean) / len(values)
    variance = np.einsum("kc,kl,lc->c", vectors, covariance, vectors)
    channels = mean @ vectors
    over_images = np.sqrt(max(variance.mean(), 0.0))
    return Spread(float(channels.mean()), float(over_images), float(channels.std()))


def find_top_images(lambdas: np.ndarray, count: int) -> np.ndarray:
    """Returns the images that use each component most, by its share of the image's weights.

    Images are ranked by share because the hard sigmoid saturates: lambda is 1 for many of them.

    Args:
        lambdas: [N, K].
        count: number of images of each component.

    Returns:
        Their positions, the largest share first, int [K, min(count, N)].
    """
    return np.argsort(-shares(lambdas), axis=0, kind="stable")[:count].T
