"""The study of the flagship in the documentation: train, measure, write the page.

python scripts/flagship_study.py train --data showers --runs runs --gpus 0,1,2,3 --jobs 20
python scripts/flagship_study.py train --data showers --runs runs --only size data
python scripts/flagship_study.py measure runs geant4.h5 -o docs/results/flagship.json --jobs 8
python scripts/flagship_study.py page docs/results/flagship.json -o docs/flagship.md

Each can be stopped and continues with the same command: finished trainings are skipped, and measurements of the
same weights, showers and settings are kept.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from caloforge.errors import CaloforgeError, InputError
from caloforge.studies.flagship.measure import Measurement, measure_all
from caloforge.studies.flagship.page import read_results, write_page
from caloforge.studies.flagship.plan import STEPS, entries_of, read_plan, tasks_of
from caloforge.validate.metrics.base import Settings
from caloforge.zoo.recipes import Jobs, finished, found, train_side_by_side

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results" / "flagship.json"
PAGE = HERE.parent / "docs" / "flagship.md"


def main() -> int:
    """Read the arguments, train, measure or write the page; return the exit code."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        failed: list[str] = given.work(given)
    except CaloforgeError as error:
        print(f"flagship_study: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("flagship_study: stopped; the same command continues", file=sys.stderr)
        return 130
    if failed:
        print(f"flagship_study: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def train(given: argparse.Namespace) -> list[str]:
    """Train what is not finished; return the names of what failed."""
    plan = entries_of(read_plan(given.plan), given.only)
    missing = {name: entry for name, entry in plan.items() if given.fresh or not finished(given.runs / name)}
    for name in plan.keys() - missing.keys():
        print(f"{name}: is trained", flush=True)
    files = {name: found(entry.data, [given.data]) for name, entry in missing.items()}
    given.runs.mkdir(parents=True, exist_ok=True)
    return train_side_by_side(missing, files, _jobs(given))


def measure(given: argparse.Namespace) -> list[str]:
    """Measure what is trained; return the names of what failed."""
    plan = entries_of(read_plan(given.plan), given.only)
    settings = Settings(seed=given.seed, classifier_seeds=given.networks, device=given.device or "auto")
    how = Measurement(tuple(given.references), settings, given.n, given.device or "auto", given.seconds)
    tasks = list(tasks_of(plan, given.runs, given.students, given.steps))
    if not tasks:
        msg = f"{given.runs} has no finished run of the plan; expected the folder that 'train' wrote"
        raise InputError(msg)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    gpus = Jobs(given.runs, given.jobs, _gpus(given), given.device).gpu_numbers()
    failed = measure_all(tasks, how, given.output, _command(given), given.jobs or max(1, len(gpus)), gpus)
    print(f"wrote {given.output}", flush=True)
    return failed


def page(given: argparse.Namespace) -> list[str]:
    """Write the page and its figures, which lie beside the results."""
    plan = read_plan(given.plan)
    text = (HERE / "flagship_intro.md").read_text().strip()
    path = write_page(read_results(given.results), given.output, given.results.parent, plan, text)
    print(f"wrote {path}", flush=True)
    return []


def _command(given: argparse.Namespace) -> str:
    """Return the command that measures the same, with the names of files and without their folders."""
    words = ["python", "scripts/flagship_study.py", "measure", given.runs.name]
    words += [path.name for path in given.references]
    for student in given.students:
        words += ["--student", Path(student).name if Path(student).is_dir() else student]
    for option, value, usual in (
        ("-n", given.n, None),
        ("--networks", given.networks, 10),
        ("--seed", given.seed, 1),
        ("--steps", ",".join(map(str, given.steps)), ",".join(map(str, STEPS))),
    ):
        words += [option, str(value)] if value != usual else []
    return shlex.join(words)


def _gpus(given: argparse.Namespace) -> tuple[str, ...] | None:
    return None if given.gpus is None else tuple(gpu.strip() for gpu in given.gpus.split(","))


def _jobs(given: argparse.Namespace) -> Jobs:
    return Jobs(given.runs, given.jobs, _gpus(given), given.device, given.threads, given.fresh)


def _steps(text: str) -> tuple[int, ...]:
    """Return numbers of steps from a text such as 1,2,4."""
    steps = tuple(int(part) for part in text.split(","))
    if min(steps) < 1:
        raise ValueError
    return steps


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    works = parser.add_subparsers(required=True, metavar="train|measure|page")
    plan = argparse.ArgumentParser(add_help=False)
    plan.add_argument("--plan", type=Path, default=HERE / "flagship.toml")
    plan.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="groups (ablations, size, data, steps) or names"
    )
    one = works.add_parser("train", parents=[plan], help="train what is not finished")
    one.add_argument("--data", type=Path, required=True, help="folder of the showers to train on")
    one.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    one.add_argument("--jobs", type=int, help="trainings at a time; as many as GPUs")
    one.add_argument("--gpus", help="numbers of the GPUs, such as 0,1; all of them")
    one.add_argument("--device", choices=("cpu", "cuda"), help="instead of the devices of the plan")
    one.add_argument("--threads", type=int, default=1, help="CPU threads of a training")
    one.add_argument("--fresh", action="store_true", help="train again from nothing")
    one.set_defaults(work=train)
    two = works.add_parser("measure", parents=[plan], help="compare with Geant4")
    two.add_argument("runs", type=Path, help="folder of the run folders")
    two.add_argument(
        "references", type=Path, nargs="+", metavar="REF.h5", help="showers that nothing was trained on"
    )
    two.add_argument("-o", "--output", type=Path, default=RESULTS)
    two.add_argument(
        "--student", dest="students", action="append", default=[], metavar="MODEL",
        help="a run folder or a shipped model, measured beside; a run folder's teacher too",
    )  # fmt: skip
    two.add_argument("--steps", type=_steps, default=STEPS, help="steps of the group steps, such as 1,2,4")
    two.add_argument("--networks", type=int, default=10, help="classifiers behind each AUC")
    two.add_argument("-n", type=int, help="showers at most; all")
    two.add_argument("--seed", type=int, default=1)
    two.add_argument("--seconds", type=float, default=2.0, help="how long each is timed")
    two.add_argument("--jobs", type=int, help="at a time; as many as GPUs")
    two.add_argument("--gpus", help="numbers of the GPUs, such as 0,1; all of them")
    two.add_argument("--device", choices=("cpu", "cuda"), help="where to generate and to compare")
    two.set_defaults(work=measure)
    three = works.add_parser("page", help="write tables and figures")
    three.add_argument("results", type=Path, nargs="?", default=RESULTS)
    three.add_argument("--plan", type=Path, default=HERE / "flagship.toml")
    three.add_argument("-o", "--output", type=Path, default=PAGE)
    three.set_defaults(work=page)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
