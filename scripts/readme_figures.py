"""Draw docs/results/showers.png: a Geant4 and a generated shower of one energy, and the spectrum of the cells of many.

python scripts/readme_figures.py SEALED.h5 GENERATED.h5                        both in 3-D, and the spectra with their ratio
python scripts/readme_figures.py SEALED.h5 ild-photon-50gev/flow-matching -n 500   the showers are generated first

The showers shown are those that ``caloforge validate`` shows: of the reference one of median visible energy, of the model the same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from PIL import Image

from caloforge.geometry.draw import text_as_it_is
from caloforge.showers import open_showers
from caloforge.validate.plots.draw import fill_panel
from caloforge.validate.plots.event import draw_solid, energy_limits, format_energy, hit_boxes
from caloforge.validate.plots.panel import SEQUENTIAL, figure_style
from caloforge.validate.plots.spectra import whole_spectrum
from caloforge.validate.report.event import pick_showers
from caloforge.validate.sample import Sample
from caloforge.zoo.store import load

THRESHOLD, MOST = 0.1, 1500  # MeV of a drawn cell; most cells of a shower
LOWEST = 0.0099  # MeV, where the spectrum begins: a tenth of the threshold of a hit
SIZE, DPI = (14.0, 4.7), 100  # inches


def draw(samples: list[Sample], pyplot: Any) -> Any:
    """Return the figure of the reference and one generated sample."""
    showers = pick_showers(samples)
    boxes = [hit_boxes(shower, THRESHOLD, MOST) for shower in showers]
    norm = LogNorm(*energy_limits(np.concatenate([each.hits for each in boxes]), THRESHOLD))
    scale = LinearSegmentedColormap.from_list("energy", SEQUENTIAL)
    figure = pyplot.figure(figsize=SIZE, layout="none")
    every = np.concatenate([each.corners.reshape(-1, 3) for each in boxes])
    low, high = every.min(axis=0)[[2, 0, 1]], every.max(axis=0)[[2, 0, 1]]
    for number, (sample, shower, each) in enumerate(zip(samples, showers, boxes, strict=True)):
        left = 0.325 * number
        axes = figure.add_axes((left - 0.01, 0.16, 0.33, 0.82), projection="3d", computed_zorder=False)
        draw_solid(axes, each, norm, scale)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
        axes.set_box_aspect(tuple(np.maximum((high - low) / (high - low).max(), 0.6)), zoom=0.98)
        particle = {"gamma": "photon", "e-": "electron"}.get(shower.particle, shower.particle)
        energy = format_energy(float(shower.incident_energy[0]))
        figure.text(left + 0.015, 0.925, f"{sample.label}: a {energy} {particle}", fontsize=15)
    bar = figure.add_axes((0.215, 0.095, 0.25, 0.028))
    mappable = pyplot.cm.ScalarMappable(norm=norm, cmap=scale)
    figure.colorbar(mappable, cax=bar, orientation="horizontal").set_label(
        "cell energy [MeV]", fontsize=11, labelpad=0
    )
    bar.tick_params(labelsize=10)
    main, ratio = figure.add_axes((0.735, 0.36, 0.255, 0.55)), figure.add_axes((0.735, 0.125, 0.255, 0.21))
    ratio.sharex(main)
    (spectrum,) = whole_spectrum(samples)
    shown = slice(int(np.searchsorted(spectrum.edges, LOWEST)), len(spectrum.edges))
    curves = tuple(
        replace(curve, y=curve.y[shown.start :], error=curve.error[shown.start :])
        for curve in spectrum.curves
    )
    fill_panel(replace(spectrum, edges=spectrum.edges[shown], curves=curves), main, ratio, inches=3.5)
    main.set_title(f"cells of {samples[0].n:,} and {samples[1].n:,} showers", loc="left", fontsize=13)
    main.tick_params(labelbottom=False)
    for axes in (main, ratio):
        axes.tick_params(labelsize=11)
        axes.xaxis.label.set_fontsize(12)
        axes.yaxis.label.set_fontsize(11)
    for text in main.get_legend().get_texts():
        text.set_fontsize(11)
    text_as_it_is(figure)
    return figure


def save(figure: Any, path: Path, colours: int = 256) -> None:
    """Write a figure as a PNG of few colours on white, which also reads on a dark page."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    picture = Image.open(buffer).convert("RGB").quantize(colours, kmeans=1, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def main() -> None:
    """Read or generate the showers, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path, help="file of sealed Geant4 showers")
    parser.add_argument("generated", help="file of generated showers, or DATASET/MODEL")
    parser.add_argument(
        "-n",
        type=int,
        default=500,
        help="showers of the reference that are used, and of a model that are generated",
    )
    parser.add_argument("--label", help="name of the model in the figure")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).parents[1] / "docs" / "results" / "showers.png"
    )
    options = parser.parse_args()
    with open_showers(options.reference) as file:
        truth = file[: options.n]
    if Path(options.generated).exists():
        with open_showers(options.generated) as file:
            fake = file[:]
    else:
        fake = load(options.generated).generate(like=truth, seed=1)
    label = options.label or str(fake.source).rpartition("/")[2]
    with figure_style() as pyplot:
        save(draw([Sample(truth, "Geant4"), Sample(fake, label)], pyplot), options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
