"""The gate's second detector: how far an image's features lie from those of the training films.

Mahalanobis distance, as Lee et al., "A simple unified framework for detecting out-of-distribution samples and
adversarial attacks", NeurIPS 2018, use it; with one Gaussian, because findings do not exclude each other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FeatureDistance:
    """A fitted Gaussian in the space of the features' strongest principal components.

    Attributes
    ----------
    centre : ndarray of shape (d,), dtype=float32
        Mean of the training features.
    whitening : ndarray of shape (d, n_components), dtype=float32
        Brings the covariance to the identity.
    """

    centre: NDArray[np.float32]
    whitening: NDArray[np.float32]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances, shape (n,), of features of shape (n, d), divided by the square root of components."""
        white = (features - self.centre) @ self.whitening
        return np.asarray(np.sqrt(np.mean(white.astype(np.float64) ** 2, axis=1)))


def fit_distance(features: NDArray[np.float32], components: int) -> FeatureDistance:
    """Fit the Gaussian on the features of training films.

    The covariance of the strongest `components` is shrunk as Ledoit and Wolf do (J Multivariate Anal 2004;88:365-411);
    the weaker ones carry little but rounding, which a quantised model has more of.

    Parameters
    ----------
    features : ndarray of shape (n, d), dtype=float32
        Of at least 3 films.
    components : int
        At most; never more than half the films.
    """
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import PCA

    count = max(1, min(components, len(features) // 2, features.shape[1]))
    pca = PCA(count, svd_solver="full").fit(features)
    covariance = LedoitWolf(assume_centered=True).fit(pca.transform(features)).covariance_
    values, vectors = np.linalg.eigh(covariance)
    whitening = pca.components_.T @ (vectors / np.sqrt(np.maximum(values, 1e-12 * max(values[-1], 1e-30))))
    return FeatureDistance(np.asarray(pca.mean_, np.float32), np.asarray(whitening, np.float32))
