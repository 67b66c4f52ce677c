"""Write docs/models.md from the cards of the shipped models and the published benchmark, and the speed table of README.md.

python scripts/models_page.py                      from docs/results/benchmark.json
python scripts/models_page.py --benchmark FOLDER   publish the output of caloforge benchmark first
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from caloforge.benchmark.page import speed_section
from caloforge.text_files import read_json
from caloforge.zoo.store import shipped_models
from caloforge.zoo.tables import models_page

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "models.md", ROOT / "README.md"
PUBLISHED, FIGURE = (ROOT / "docs" / "results" / name for name in ("benchmark.json", "benchmark.png"))
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


def main() -> None:
    """Write both pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--benchmark", type=Path, help="output folder of caloforge benchmark, to be published"
    )
    options = parser.parse_args()
    if options.benchmark is not None:
        shutil.copyfile(options.benchmark / "benchmark.json", PUBLISHED)
        picture = Image.open(options.benchmark / "figures" / "pareto.png").convert("RGB")
        picture.quantize(256, dither=Image.Dither.NONE).save(FIGURE, optimize=True)
    page, readme = pages(read_json(PUBLISHED), README.read_text())
    PAGE.write_text(page)
    README.write_text(readme)


if __name__ == "__main__":
    main()
