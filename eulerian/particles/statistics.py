"""Statistics of a sample of particles: moments, and confidence intervals of means."""

import math
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np
from scipy.special import ndtri, stdtrit

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.particles.sample import ParticleSample


def half_widths(sample: ParticleSample, values: Floats, n_labels: int, comm: MPI.Comm, level: float = 0.95) -> Floats:
    """Half widths (m,) of confidence intervals of Σ w_n f_n for columns f of ``values`` (n, m). Collective.

    Independent particles: from their variance within each label (labels are strata), by the normal law. Others: from
    the variance of the replicates' means, by Student's law with one degree of freedom less than replicates. NaN where
    there is nothing to take a variance of.
    """
    if sample.independent:
        return float(ndtri(0.5 + 0.5 * level)) * np.sqrt(_variance_of_draws(sample, values, n_labels, comm))
    means = replicate_means(sample, values, comm)
    # One degree of freedom at least: a single replicate has a standard error of NaN anyway.
    return float(stdtrit(max(len(means) - 1, 1), 0.5 + 0.5 * level)) * standard_errors(means)


def replicate_means(sample: ParticleSample, values: Floats, comm: MPI.Comm) -> Floats:
    """The mean of each column of ``values`` (n, m) over each replicate, (R, m). Collective."""
    n_replicates = count_replicates(sample, comm)
    rows = np.zeros((n_replicates, values.shape[1] + 1))
    # `+=` would count a replicate once.
    np.add.at(rows, sample.replicate, sample.weights[:, None] * np.concatenate([values, np.ones((len(values), 1))], 1))
    total = parallel.sum_all(comm, rows)
    return np.asarray(total[:, :-1] / total[:, -1:])


def count_replicates(sample: ParticleSample, comm: MPI.Comm) -> int:
    """Number of replicates. Collective."""
    return int(comm.allreduce(int(sample.replicate.max(initial=-1)), MPI.MAX)) + 1


def standard_errors(replicates: Floats | Sequence[Floats]) -> Floats:
    """Standard errors of the mean over independent replicates, the first axis; NaN if there is one only."""
    rows = np.asarray(replicates)
    if len(rows) < 2:
        return np.full(rows.shape[1:], np.nan)
    return np.asarray(rows.std(axis=0, ddof=1) / math.sqrt(len(rows)))


def _variance_of_draws(sample: ParticleSample, values: Floats, n_labels: int, comm: MPI.Comm) -> Floats:
    """Variance (m,) of Σ w f with the labels as strata, of weights that are all alike in a stratum. Collective."""
    size = values.shape[1]
    sums = np.zeros((n_labels, size + 2))
    ones = np.ones((len(values), 1))
    np.add.at(sums, sample.labels, np.concatenate([sample.weights[:, None] * values, sample.weights[:, None], ones], 1))
    sums = parallel.sum_all(comm, sums)
    with np.errstate(all="ignore"):
        means = sums[:, :size] / sums[:, size : size + 1]
        spread = np.zeros((n_labels, size))
        np.add.at(spread, sample.labels, (sample.weights[:, None] * (values - means[sample.labels])) ** 2)
        count = sums[:, -1:]
        # Unbiased: the mean of each label has cost a degree of freedom.
        by_label = parallel.sum_all(comm, spread) * (count / (count - 1.0))
    return np.asarray(by_label[sums[:, -1] > 0].sum(axis=0))  # a label without particles has no variance


def moments(sample: ParticleSample, x: Floats, n_labels: int, comm: MPI.Comm) -> tuple[Floats, Floats]:
    """Means (K, dim) and covariances (K, dim, dim) per label of a sample's particles at x (n, dim). Collective."""
    dim = x.shape[1]
    sums = np.zeros((n_labels, dim + 1))
    np.add.at(sums, sample.labels, sample.weights[:, None] * np.concatenate([x, np.ones((len(x), 1))], axis=1))
    sums = parallel.sum_all(comm, sums)
    with np.errstate(all="ignore"):
        mean = sums[:, :dim] / sums[:, dim:]
        rest = x - mean[sample.labels]
        second = np.zeros((n_labels, dim, dim))
        np.add.at(second, sample.labels, sample.weights[:, None, None] * rest[:, :, None] * rest[:, None, :])
        return mean, parallel.sum_all(comm, second) / sums[:, dim, None, None]
