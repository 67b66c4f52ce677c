"""Write what cards and published benchmarks say: docs/models.md, the tables of README.md and docs/benchmark.md, the entrance of the results.

python scripts/models_page.py                      from docs/results/benchmark.json and benchmark-gpu.json
python scripts/models_page.py --benchmark FOLDER   publish the output of caloforge benchmark first
python scripts/models_page.py --gpu FOLDER         the same for the output of caloforge benchmark --device cuda
python scripts/models_page.py --results            the entrance and the figures alone
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from caloforge.benchmark.page import cost, headline, speed_section, strongest, write_page
from caloforge.studies.site.index import read_site, write_index
from caloforge.text_files import read_json
from caloforge.zoo.store import Card, shipped_models
from caloforge.zoo.tables import models_page, width_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
MODELS, README, BENCHMARK = ROOT / "docs" / "models.md", ROOT / "README.md", ROOT / "docs" / "benchmark.md"
PUBLISHED, ON_GPU, FIGURE, SPEEDUP, SITE = (
    RESULTS / name
    for name in ("benchmark.json", "benchmark-gpu.json", "benchmark.png", "speedup.png", "site")
)
BEGIN, END = "<!-- table: scripts/models_page.py -->\n\n", "\n<!-- end of table -->\n"
SEE = "\n![time of a shower against AUC](results/benchmark.png)\n\n[The benchmark](benchmark.md) says how this is measured.\n"


def markdown(rows: list[list[str]]) -> str:
    """Return a table in Markdown; its first row are the columns."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- |" + " --- |" * (len(rows[0]) - 1), *lines[1:]]) + "\n"


def replaced(text: str, table: str) -> str:
    """Return a page with the table between its two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table + END + rest.partition(END)[2]


def milliseconds(value: float | None) -> str:
    """Return a time, ms, with three digits."""
    return "–" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def on_gpu(gpu: Mapping[str, Any], name: str) -> tuple[float, int] | None:
    """Return the shortest time of a shower on the GPU, ms, and how many were made at once."""
    models = [model for model in gpu["models"] if model["name"] == name]
    times = [
        (cost(entry), entry["batch"])
        for model in models
        for entry in model["measurements"]
        if "memory" in entry
    ]
    return min(((time[0], batch) for time, batch in times if time is not None), default=None)


def accuracy(card: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """Return response and resolution over Geant4's, the strongest classifier's AUC, and the showers to 5 sigma."""
    metrics = card["metrics"]
    response = metrics["moments"]["response"]
    width, error = width_of(card, "response")
    found, several = strongest(model), metrics["figures"].get("detectability") or {}
    showers = several.get("value")
    limit = several.get("lower_limit")
    return [
        f"{response['ratio']:.3f} ± {response['ratio_uncertainty']:.3f}",
        f"{width:.2f} ± {error:.2f}",
        "–" if found is None else f"{found[1]['value']:.2f}",
        "–" if showers is None and limit is None else f"{showers:,.0f}" if showers else f"above {limit:,.0f}",
    ]


def summary_table(cards: Mapping[str, Card], content: Mapping[str, Any], gpu: Mapping[str, Any]) -> str:
    """Return the README's table: accuracy and speed of every shipped model."""
    columns = [
        "model",
        "response",
        "resolution",
        "AUC",
        "showers to 5 σ",
        "ms, one core",
        "× Geant4",
        "ms, GPU",
    ]
    rows = [columns]
    for model in content["models"]:
        place = headline(model["measurements"])
        if model["name"] not in cards or place is None:
            continue
        entry, beam = model["measurements"][place], content["beams"][model["beam"]]
        time, geant4 = cost(entry), beam.get("geant4")
        ratio = None if time is None or geant4 is None else geant4["cpu_ms"] / time[0]
        fast = on_gpu(gpu, model["name"])
        rows.append(
            [
                f"`{model['name']}`",
                *accuracy(cards[model["name"]].content, model),
                milliseconds(None if time is None else time[0]),
                "–" if ratio is None else f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}",
                milliseconds(None if fast is None else fast[0]),
            ]
        )
    return markdown(rows)


def gpu_table(gpu: Mapping[str, Any]) -> str:
    """Return the table of docs/benchmark.md: every batch on the GPU."""
    batches = gpu["settings"]["batch"]
    head = ["model", *(f"batch {batch:,}" for batch in batches), "to file", "peak memory of the GPU, MB"]
    rows = [head]
    for model in gpu["models"]:
        series = {entry["batch"]: entry for entry in model["measurements"] if "memory" in entry}
        if not series:
            continue
        times = [cost(series.get(batch, {})) for batch in batches]
        largest = series[max(series)]
        file = cost(largest, "file")
        rows.append(
            [
                f"`{model['name']}`",
                *(milliseconds(None if time is None else time[0]) for time in times),
                milliseconds(None if file is None else file[0]),
                f"{largest['peak_mb']:,.0f}",
            ]
        )
    said = f"`{gpu['command']}` on one {gpu['machine']['gpu']}, {gpu['date']}, milliseconds of the clock a shower; to file: the largest batch.\n\n"
    return said + markdown(rows)


def pages(content: dict[str, Any], gpu: dict[str, Any], readme: str, benchmark: str) -> tuple[str, str, str]:
    """Return the page of the models, README.md and docs/benchmark.md with their tables.

    Arguments:
        content: That of ``benchmark.json``.
        gpu: That of ``benchmark-gpu.json``.
        readme: The present text of README.md, with the two marks around its table; as for ``benchmark``.
    """
    cards = shipped_models()
    page = models_page(cards, speed_section(content) + SEE)
    return page, replaced(readme, summary_table(cards, content, gpu)), replaced(benchmark, gpu_table(gpu))


def small(source: Path, target: Path, colours: int = 256) -> None:
    """Write a picture in few colours."""
    picture = Image.open(source).convert("RGB")
    picture.quantize(colours, kmeans=2, dither=Image.Dither.NONE).save(target, optimize=True)


def results() -> None:
    """Write the entrance of the results again, from what is stored beside it, and its figure."""
    cards = {name: card.content for name, card in shipped_models().items()}
    write_index(SITE, read_site(SITE), cards, [read_json(PUBLISHED), read_json(ON_GPU)])
    figures = SITE / "figures"
    small(figures / "speedup.png", SPEEDUP, 96)
    shutil.rmtree(figures)


def times() -> None:
    """Draw the figure of times against AUC again, from the published benchmark."""
    with TemporaryDirectory() as folder:
        write_page(Path(folder), read_json(PUBLISHED))
        small(Path(folder) / "figures" / "pareto.png", FIGURE)


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--benchmark", type=Path, help="output folder of caloforge benchmark, to be published"
    )
    parser.add_argument("--gpu", type=Path, help="that of caloforge benchmark --device cuda")
    parser.add_argument(
        "--results", action="store_true", help="write the entrance of the results and the figures alone"
    )
    options = parser.parse_args()
    if options.gpu is not None:
        shutil.copyfile(options.gpu / "benchmark.json", ON_GPU)
    if options.benchmark is not None:
        shutil.copyfile(options.benchmark / "benchmark.json", PUBLISHED)
    times()
    results()
    if options.results:
        return
    targets = (MODELS, README, BENCHMARK)
    texts = pages(read_json(PUBLISHED), read_json(ON_GPU), README.read_text(), BENCHMARK.read_text())
    for path, text in zip(targets, texts, strict=True):
        path.write_text(text)


if __name__ == "__main__":
    main()
