"""Speed of the metrics: quantile divergence, SSIM, and all default metrics of 10,000 against 10,000 showers.

    python benchmarks/bench_metrics.py [--reference R.h5 --generated G.h5] [-n 10000] [--threads 2]
    python benchmarks/bench_metrics.py --classifiers R.h5 G.h5

Without files it makes parametrised atlas-em-barrel showers (not timed). ``--classifiers`` trains both presets
of the classifier on the same files and prints their AUC side by side, cells and observables.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from caloforge.showers import Showers, open_showers
from caloforge.statistics.distances import expected_divergence, quantile_divergence
from caloforge.statistics.pairs import structural_similarity
from caloforge.validate.metrics import METRICS, Settings, compute_metrics
from caloforge.validate.sample import Sample


def quantile(n: int = 1_000_000, n_quant: int = 8192) -> None:
    """Time the quantile divergence; compare it with its expectation."""
    rng = np.random.default_rng(0)
    for dimensions in (1, 2, 3, 4):
        a, b = rng.normal(size=(2, n, dimensions))
        start = time.perf_counter()
        d = quantile_divergence(a, b, n_quant)
        seconds = time.perf_counter() - start
        ratio = d / expected_divergence(n_quant, n, n)
        print(
            f"quantile divergence, {n:,} values, {n_quant} bins, {dimensions}-D: {seconds:.2f} s, "
            f"over expectation {ratio:.3f}"
        )


def ssim(pairs: int = 64) -> None:
    """Time SSIM beside scikit-image on the same pairs, where that is installed."""
    a, b = np.random.default_rng(0).exponential(3e-5, size=(2, pairs, 30, 30, 30))
    start = time.perf_counter()
    structural_similarity(a, np.arange(pairs), b, np.arange(pairs), (1e-4,))
    ours = time.perf_counter() - start
    try:
        from skimage.metrics import structural_similarity as of_one_pair
    except ImportError:
        print(f"SSIM of {pairs} pairs of 27,000 cells: {ours:.2f} s; scikit-image is not installed")
        return
    few = 8
    start = time.perf_counter()
    for x, y in zip(a[:few], b[:few], strict=True):
        of_one_pair(
            x,
            y,
            data_range=1e-4,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    theirs = (time.perf_counter() - start) * pairs / few
    print(
        f"SSIM, 30 x 30 x 30: {1e3 * ours / pairs:.2f} ms a pair, scikit-image over this: {theirs / ours:.1f}"
    )


def toy_pair(n: int) -> tuple[Showers, Showers]:
    """Return two samples of parametrised showers."""
    from caloforge.simulate import simulate

    a, b = (simulate("atlas-em-barrel", n=n, engine="gflash", seed=seed) for seed in (1, 2))
    return a, b


def everything(reference: Sample, generated: Sample) -> None:
    """Time each default metric and all of them."""
    start = time.perf_counter()
    for sample in (reference, generated):
        len(sample.observables)
    first = time.perf_counter() - start
    print(f"observables of {reference.n} + {generated.n} showers: {first:.1f} s")
    total = first
    for name in METRICS.names():
        skipped = name == "ssim" and not reference.detector.is_grid
        if skipped or name == "classifier_cnn":
            continue
        start = time.perf_counter()
        compute_metrics(reference, generated, Settings(), [name])
        seconds = time.perf_counter() - start
        total += seconds
        print(f"  {name:20s} {seconds:6.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"all together: {total:.1f} s, CPU {time.process_time():.0f} s since start, peak {peak:.2f} GiB")


def classifiers(reference: Sample, generated: Sample, seeds: int = 2) -> None:
    """Print the AUC of both presets."""
    names = ["classifier_low", "classifier_high"]
    for preset in ("fast", "calochallenge"):
        start = time.perf_counter()
        settings = Settings(classifier=preset, classifier_seeds=seeds, floor_seeds=1)
        result = compute_metrics(reference, generated, settings, names)
        seconds = time.perf_counter() - start
        for key in ("auc_low", "auc_high", "jsd_low", "jsd_high"):
            value = result[key]
            print(
                f"{preset:14s} {key:9s} {value['value']:.4f} +- {value['uncertainty']:.4f}"
                f"  floor {value['floor']:.4f}"
            )
        print(f"{preset:14s} {seconds:.0f} s")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference")
    parser.add_argument("--generated")
    parser.add_argument("--classifiers", nargs=2, metavar="FILE")
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    if options.classifiers:
        classifiers(*(Sample(open_showers(path), path) for path in options.classifiers))
        return
    quantile()
    ssim()
    if options.reference and options.generated:
        sources = [open_showers(options.reference), open_showers(options.generated)]
    else:
        sources = list(toy_pair(options.n))
    everything(
        *(Sample(source, label) for source, label in zip(sources, ("reference", "generated"), strict=True))
    )


if __name__ == "__main__":
    main()
