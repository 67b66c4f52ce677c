"""The table of docs/production.md: a production of many showers on a batch system, from measured rates, with stragglers, failures and retries.

Jobs of equal size go to slots that become free. A job's time is its work over the speed of its node, where speeds scatter; some nodes are
slow by a factor. A job fails with a probability an hour (eviction, node, file system), loses what it had done since its last finished chunk, and goes back
to the queue. Near the end, when nothing waits, a copy of the slowest running job may be started: the first to finish counts. All times in hours.

    python scripts/production.py            # the tables of docs/production.md
    python scripts/production.py --showers 1e8 --slots 200 --rate 0.1
"""

from __future__ import annotations

import argparse
import heapq
import math
from dataclasses import dataclass, replace

import numpy as np

HOUR = 3600.0


@dataclass(frozen=True)
class Site:
    """A batch system, as its users see it."""

    slots: int  # jobs at once
    spread: float = 0.15  # standard deviation of the logarithm of a node's speed
    slow: float = 0.02  # part of the jobs that meet a slow node
    factor: float = 4.0  # by which it is slower
    failures: float = 0.01  # of a running job, an hour
    start: float = 0.1  # hours from a free slot to the first shower: queue, environment, weights or tables
    ramp: float = 2.0  # hours over which the slots become free at the beginning


@dataclass(frozen=True)
class Plan:
    """How the production is cut."""

    showers: int
    rate: float  # showers a second of a slot
    job: int  # showers of a job
    chunk: int  # showers whose loss a failure costs, on average half of it
    copies: bool = False  # whether slow jobs at the end are started twice


@dataclass(frozen=True)
class Outcome:
    """What a simulated production cost."""

    hours: float  # from the first job to the last file
    used: float  # hours of all slots
    ideal: float  # the same without failures, slow nodes, starts
    retries: int
    half: float  # hours until half of the showers are there
    nearly: float  # until 99 % are


def simulate(plan: Plan, site: Site, rng: np.random.Generator) -> Outcome:
    """Simulate a production."""
    n_jobs = math.ceil(plan.showers / plan.job)
    left = np.full(n_jobs, plan.job / plan.rate / HOUR)  # hours of work at the speed of a median node
    left[-1] *= (plan.showers - (n_jobs - 1) * plan.job) / plan.job
    waiting = list(range(n_jobs - 1, -1, -1))
    free = [(site.ramp * k / site.slots, k) for k in range(site.slots)]
    heapq.heapify(free)
    running: list[
        tuple[float, int, int, float, float, bool]
    ] = []  # end, slot, job, beginning, speed, whether it fails
    ends: dict[int, float] = {}
    copied: set[int] = set()
    used, retries, chunk = 0.0, 0, plan.chunk / plan.rate / HOUR

    def begin(now: float, slot: int, job: int) -> None:
        speed = math.exp(site.spread * rng.standard_normal())
        speed /= site.factor if rng.random() < site.slow else 1.0
        needed = site.start + left[job] / speed
        failing = rng.exponential(1.0 / site.failures) if site.failures else math.inf
        heapq.heappush(running, (now + min(needed, failing), slot, job, now, speed, failing < needed))

    while len(ends) < n_jobs:
        if waiting and free and (not running or free[0][0] <= running[0][0]):
            now, slot = heapq.heappop(free)
            begin(now, slot, waiting.pop())
            continue
        now, slot, job, began, speed, failed = heapq.heappop(running)
        heapq.heappush(free, (now, slot))
        used += now - began
        if job in ends:
            continue
        if failed:
            retries += 1
            done = max(0.0, (now - began - site.start) * speed)
            left[job] -= min(left[job] * 0.999, max(0.0, math.floor(done / chunk) * chunk))
            if not any(entry[2] == job for entry in running):
                waiting.append(job)
            continue
        ends[job] = now
        if plan.copies and not waiting:
            alone = [entry for entry in running if entry[2] not in copied and entry[2] not in ends]
            if alone:
                latest = max(alone)
                copied.add(latest[2])
                at, place = heapq.heappop(free)
                begin(max(at, now), place, latest[2])
    times = np.sort(list(ends.values()))
    used += sum(
        max(0.0, times[-1] - entry[3]) for entry in running
    )  # copies that are ended with the production
    ideal = plan.showers / plan.rate / HOUR
    half, nearly = times[len(times) // 2], times[min(len(times) - 1, int(0.99 * len(times)))]
    return Outcome(float(times[-1]), used, ideal, retries, float(half), float(nearly))


def mean(plan: Plan, site: Site, seeds: int) -> Outcome:
    """Return the mean of some simulated productions."""
    found = [simulate(plan, site, np.random.default_rng([7, seed])) for seed in range(seeds)]
    values = {name: float(np.mean([getattr(one, name) for one in found])) for name in vars(found[0])}
    return Outcome(**{**values, "retries": round(values["retries"])})


# Milliseconds of a shower: docs/models.md#speed (one core of AMD EPYC) and docs/benchmark.md#on-a-gpu (NVIDIA H200), clic-electron; bytes of a
# sparse file of it, and of a dense one, by the command beside the table of the page.
RATES = {
    "Geant4, CPU": (837.0, 1_000),
    "`clic-electron/flow-matching`, CPU": (321.0, 1_000),
    "`clic-electron/conv3d-gan`, CPU": (4.9, 1_000),
    "`clic-electron/flow-matching`, GPU": (22.2, 16),
    "`clic-electron/conv3d-gan`, GPU": (3.4, 16),
}


def duration(hours: float) -> str:
    """Return a time in the unit that fits."""
    return f"{hours / 24:,.1f} d" if hours >= 72 else f"{hours:,.1f} h"


def tables(showers: int, hours: float, site: Site, seeds: int) -> None:
    """Print the tables of the page."""
    print(f"{showers:,} showers in jobs of about {hours:g} h; {site}\n")
    print(
        "| showers by | slots | showers a job | jobs | slot hours, ideal | used | time, ideal | half | 99 % | all | all, with copies | retries |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (milliseconds, slots) in RATES.items():
        rate, here = 1e3 / milliseconds, replace(site, slots=slots)
        job = round_down(rate * HOUR * hours)
        plan = Plan(showers, rate, job, min(job, 2_000))
        one, two = mean(plan, here, seeds), mean(replace(plan, copies=True), here, seeds)
        cells = [
            name, f"{slots:,}", f"{job:,}", f"{math.ceil(showers / job):,}", f"{one.ideal:,.0f}", f"{one.used:,.0f}",
            duration(one.ideal / slots), duration(one.half), duration(one.nearly), duration(one.hours), duration(two.hours),
            f"{one.retries:,}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")


def job_sizes(showers: int, rate: float, site: Site, seeds: int) -> None:
    """Print what the size of a job changes."""
    print(f"\n{showers:,} showers, {rate:g} a second, {site.slots:,} slots\n")
    print("| hours a job | jobs | used / ideal | all | all, with copies |")
    print("| --- | --- | --- | --- | --- |")
    for hours in (0.25, 1.0, 4.0, 12.0, 24.0):
        job = round_down(rate * HOUR * hours)
        plan = Plan(showers, rate, job, min(job, 2_000))
        one, two = mean(plan, site, seeds), mean(replace(plan, copies=True), site, seeds)
        print(
            f"| {hours:g} | {math.ceil(showers / job):,} | {one.used / one.ideal:.2f} | {duration(one.hours)} | {duration(two.hours)} |"
        )


def round_down(number: float) -> int:
    """Return a number of showers with one digit, a multiple of 100 where it is larger."""
    digit = 10 ** max(0, math.floor(math.log10(max(number, 1.0))))
    return max(1, int(number // digit) * digit)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--showers", type=float, default=1e9)
    parser.add_argument("--hours", type=float, default=4.0, help="of a job")
    parser.add_argument(
        "--rate", type=float, help="showers a second of a slot; prints what the size of a job changes"
    )
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--failures", type=float, default=0.01, help="of a running job, an hour")
    parser.add_argument("--seeds", type=int, default=3, help="productions that are simulated for each row")
    given = parser.parse_args()
    site = Site(given.slots, failures=given.failures)
    if given.rate:
        job_sizes(int(given.showers), given.rate, site, given.seeds)
        return
    tables(int(given.showers), given.hours, site, given.seeds)
    job_sizes(int(given.showers), 1e3 / RATES["`clic-electron/conv3d-gan`, CPU"][0], site, given.seeds)


if __name__ == "__main__":
    main()
