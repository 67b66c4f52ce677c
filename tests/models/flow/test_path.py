"""The path of the flow: its loss, and its integration against exact solutions.

For Gaussian data N(m, s^2) the best estimate is linear in x_t and the flow is known,

    x(t) = t m + (x(0)) sqrt((1 - t)^2 + t^2 s^2),

for x_t is N(t m, (1 - t)^2 + t^2 s^2) at all times and a flow on a line keeps the order.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from caloforge.models.flow.path import flow_loss, integrate, jump, preconditioned, rowwise_heun, time_grid

MEAN, SPREAD = 1.5, 0.4


def best(x: Tensor, t: Tensor) -> Tensor:
    """The posterior mean of N(MEAN, SPREAD^2) data."""
    t = t.view(-1, *[1] * (x.dim() - 1))
    gain = t * SPREAD**2 / (t**2 * SPREAD**2 + (1 - t) ** 2)
    return MEAN + gain * (x - t * MEAN)


def exact(x: Tensor, start: float, end: float) -> Tensor:
    """Where the flow leads from x at one time to another."""
    widths = [math.sqrt((1 - t) ** 2 + t**2 * SPREAD**2) for t in (start, end)]
    return end * MEAN + (x - start * MEAN) * widths[1] / widths[0]


def _x(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_grids_go_from_0_to_1_and_rise() -> None:
    assert time_grid(4) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert time_grid(1, 3.0) == (0.0, 1.0)
    for shift in (0.3, 1.0, 3.0):
        times = time_grid(8, shift)
        assert len(times) == 9
        assert (times[0], times[-1]) == (0.0, pytest.approx(1.0))
        assert all(b > a for a, b in pairwise(times))


@pytest.mark.parametrize("shift", [0.25, 4.0])
def test_the_shift_moves_the_times(shift: float) -> None:
    """Odds u / (1 - u) are multiplied by it: below 1 more times lie near 0."""
    for plain, moved in zip(time_grid(6)[1:-1], time_grid(6, shift)[1:-1], strict=True):
        assert moved / (1 - moved) == pytest.approx(shift * plain / (1 - plain))
        assert (moved < plain) == (shift < 1)


def _error(method: str, steps: int, end: float) -> float:
    x, times = _x(200), [end * k / steps for k in range(steps + 1)]
    if method == "heun":
        found = integrate(best, x, times)
    else:
        found = x
        for first, last in pairwise(times):
            found = jump(best, found, first, last)
    return float((found - exact(x, 0.0, end)).abs().max())


def test_heun_converges_with_the_second_order_and_euler_with_the_first() -> None:
    for method, order in (("heun", 2), ("euler", 1)):
        errors = [_error(method, steps, 0.9) for steps in (16, 32, 64, 128)]
        rates = [math.log2(a / b) for a, b in pairwise(errors)]
        assert rates[-1] == pytest.approx(order, abs=0.15)
        assert all(rate > order - 0.4 for rate in rates)


def test_to_the_end_the_error_falls_and_the_widths_are_the_datas() -> None:
    errors = [_error("heun", steps, 1.0) for steps in (8, 16, 32, 64)]
    assert all(b < 0.6 * a for a, b in pairwise(errors))
    x = integrate(best, _x(20_000), time_grid(32))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(SPREAD, rel=0.02)


def test_a_step_to_1_is_the_estimate_itself() -> None:
    x = _x(7, 3)
    torch.testing.assert_close(jump(best, x, 0.6, 1.0), best(x, torch.full((7,), 0.6, dtype=x.dtype)))
    torch.testing.assert_close(integrate(best, x, (0.0, 1.0)), best(x, torch.zeros(7)))


def test_a_known_target_is_reached_in_any_steps() -> None:
    """Where the estimate is always the same the way is a straight line."""
    goal = _x(5, 4, seed=2)
    for times in (time_grid(1), time_grid(3), time_grid(7, 0.4)):
        torch.testing.assert_close(integrate(lambda x, t: goal, _x(5, 4), times), goal)
    half = integrate(lambda x, t: goal, _x(5, 4), (0.0, 0.2, 0.5))
    torch.testing.assert_close(half, 0.5 * _x(5, 4) + 0.5 * goal)


def test_evaluations_are_two_a_step_and_one_in_the_last() -> None:
    calls: list[float] = []

    def count(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return best(x, t)

    integrate(count, _x(3), time_grid(4))
    assert calls == [0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


@pytest.mark.parametrize("steps", [1, 3])
def test_rows_of_their_own_times_are_integrated_as_one_by_one(steps: int) -> None:
    x = _x(6, 2, 3)
    start = torch.tensor([0.0, 0.0, 0.25, 0.5, 0.75, 0.9], dtype=torch.float64)
    end = torch.tensor([0.25, 1.0, 0.5, 0.6, 1.0, 1.0], dtype=torch.float64)
    together = rowwise_heun(best, x, start, end, steps)
    for row in range(6):
        a, b = float(start[row]), float(end[row])
        times = [a + (b - a) * k / steps for k in range(steps)] + [b]
        torch.testing.assert_close(together[row : row + 1], integrate(best, x[row : row + 1], times))


def test_rows_in_single_precision_end_at_1_too() -> None:
    """Thirds of an interval do not add up to 1 exactly; the last step must still be Euler's."""
    x = _x(4, 5).float()
    for cuts in (3, 7):
        grid = torch.tensor(time_grid(cuts))
        start, end = grid[-2].repeat(4), grid[-1].repeat(4)
        single = rowwise_heun(best, x, start, end, 3)
        double = rowwise_heun(best, x.double(), start.double(), end.double(), 3)
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


def test_the_loss_is_that_of_the_velocity() -> None:
    data, noise, t = _x(50, 3), _x(50, 3, seed=1), torch.linspace(0.01, 0.9, 50, dtype=torch.float64)
    found = flow_loss(best, data, noise, t)
    total = 0.0
    for row in range(50):
        time = float(t[row])
        x = (1 - time) * noise[row] + time * data[row]
        velocity = (best(x[None], t[row : row + 1])[0] - x) / (1 - time)
        total += float((velocity - (data[row] - noise[row])).square().sum())
    assert float(found) == pytest.approx(total / 150, rel=1e-4)


def test_close_to_1_the_loss_stays_finite() -> None:
    data = torch.ones(4, 2)
    loss = flow_loss(lambda x, t: torch.zeros_like(x), data, torch.zeros(4, 2), torch.ones(4))
    assert float(loss) == pytest.approx(1 / 0.05**2)
    assert float(flow_loss(lambda x, t: data, data, torch.zeros(4, 2), torch.ones(4))) == 0.0


@pytest.mark.parametrize("time", [0.0, 0.3, 0.8, 1.0])
def test_without_output_the_estimate_is_the_best_linear_one_and_its_error_the_scale_of_the_output(
    time: float,
) -> None:
    """A straight line fitted to pairs of standard normal data and their noisy values."""
    data, noise, t = _x(200_000), _x(200_000, seed=1), torch.full((200_000,), time, dtype=torch.float64)
    x = (1 - time) * noise + time * data
    slope = float((x * data).mean() / x.square().mean())
    found = preconditioned(x, t, torch.zeros_like(x))
    torch.testing.assert_close(found, slope * x, rtol=0, atol=0.02)
    scale = preconditioned(torch.zeros(1), t[:1].float(), torch.ones(1))
    assert float(scale) == pytest.approx(float((data - slope * x).std()), abs=0.01)
