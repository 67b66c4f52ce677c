"""Write docs/models.md, the speed table of README.md and the entrance of the results from the cards and the published benchmarks.

python scripts/models_page.py                      from docs/results/benchmark.json, and benchmark-gpu.json where there is one
python scripts/models_page.py --benchmark FOLDER   publish the output of caloforge benchmark first
python scripts/models_page.py --gpu FOLDER         the same for one of --device cuda
python scripts/models_page.py --results            the entrance and the figures alone
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from caloforge.benchmark.page import speed_section, write_page
from caloforge.studies.site.index import read_site, write_index
from caloforge.text_files import read_json
from caloforge.zoo.store import shipped_models
from caloforge.zoo.tables import models_page

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "models.md", ROOT / "README.md"
PUBLISHED, FIGURE = (ROOT / "docs" / "results" / name for name in ("benchmark.json", "benchmark.png"))
GPU, SITE, SPEEDUP = (
    ROOT / "docs" / "results" / name for name in ("benchmark-gpu.json", "site", "speedup.png")
)
BEGIN, END = "<!-- speed: scripts/models_page.py -->\n\n", "\n<!-- end of speed -->\n"
SEE = "\n![time of a shower against AUC](results/benchmark.png)\n\n[The benchmark](benchmark.md) says how this is measured.\n"


def pages(content: dict[str, Any], readme: str) -> tuple[str, str]:
    """Return the page of the models and README.md with their speed tables.

    Arguments:
        content: That of ``benchmark.json``.
        readme: The present text of README.md, with the two marks around its speed table.
    """
    page = models_page(shipped_models(), speed_section(content) + SEE)
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return page, before + BEGIN + speed_section(content, compact=True) + END + after


def small(source: Path, target: Path, colours: int = 256) -> None:
    """Write a picture in few colours."""
    picture = Image.open(source).convert("RGB")
    picture.quantize(colours, kmeans=2, dither=Image.Dither.NONE).save(target, optimize=True)


def results() -> None:
    """Write the entrance of the results again, from what is stored beside it, and its figure."""
    benchmarks = [read_json(path) for path in (PUBLISHED, GPU) if path.exists()]
    cards = {name: card.content for name, card in shipped_models().items()}
    write_index(SITE, read_site(SITE), cards, benchmarks)
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
    parser.add_argument(
        "--gpu", type=Path, help="output folder of caloforge benchmark --device cuda, to be published"
    )
    parser.add_argument(
        "--results", action="store_true", help="write the entrance of the results and the figures alone"
    )
    options = parser.parse_args()
    if options.benchmark is not None:
        shutil.copyfile(options.benchmark / "benchmark.json", PUBLISHED)
    if options.gpu is not None:
        shutil.copyfile(options.gpu / "benchmark.json", GPU)
    times()
    results()
    if options.results:
        return
    page, readme = pages(read_json(PUBLISHED), README.read_text())
    PAGE.write_text(page)
    README.write_text(readme)


if __name__ == "__main__":
    main()
