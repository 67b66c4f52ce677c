"""Models of a few lines that use what the loop offers, and showers for them; imported by a killed process too."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.errors import ConfigError
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.models.nn.cell_networks import reinitialise
from caloforge.models.stage import Batch, OptimizerSpec, Stage, TrainingData, Updater
from caloforge.settings import ModelConfig, OptimizerSettings
from caloforge.showers import Showers

N_CELLS = 100


def toy_showers(n: int = 64, seed: int = 0) -> Showers:
    """Blobs in 10 x 10 cells whose sum is 2 % of 50 GeV, give or take."""
    rng = np.random.default_rng(seed)
    grid = np.arange(10) - 4.5
    shape = np.exp(-(grid**2) / 4)
    cells = np.outer(shape, shape).ravel() * rng.gamma(4.0, 0.25, size=(n, N_CELLS))
    cells *= rng.normal(1000.0, 50.0, size=(n, 1)) / cells.sum(1, keepdims=True)
    cells[cells < 0.1] = 0.0
    return Showers("ild-ecal-10x10", cells.astype(np.float32), np.full(n, 50_000.0), particle="gamma")


class ToyConfig(ModelConfig):
    epochs: int = 4
    batch_size: int = 16
    critic_steps: int = 3
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-3)


class Toy(ShowerModel):
    """What the toys share: a generator on a scale that fitting sets."""

    Config = ToyConfig
    presets: ClassVar = {"improved": {}, "paper": {"epochs": 1}}
    config: ToyConfig

    def __init__(self, detector, config):
        super().__init__(detector, config)
        self.register_buffer("scale", torch.ones(()))
        self.net = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Dropout(0.1), nn.Linear(16, N_CELLS))

    def fit_transforms(self, showers: Showers) -> None:
        super().fit_transforms(showers)
        self.scale.copy_(torch.tensor(showers.cells.mean()))

    @property
    def noise_size(self) -> int:
        return 4

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        return torch.relu(self.net(noise)) * self.scale

    def spec(self, *modules: nn.Module, **changes: float) -> OptimizerSpec:
        return OptimizerSpec.of(self.config.optimizer.model_copy(update=changes), *modules)


class Adversarial(Toy):
    """Two critics, one new every epoch, several critic steps a generator step, a moving average of the generator."""

    def __init__(self, detector, config):
        super().__init__(detector, config)
        self.critic, self.fresh = (nn.Linear(N_CELLS, 1) for _ in range(2))
        self.calls: list[str] = []
        self.starts: list[Tensor] = []
        self.foreign: list[bool] = []

    def stages(self) -> tuple[Stage, ...]:
        optimizers = {
            "critic": self.spec(self.critic),
            "fresh": self.spec(self.fresh),
            "generator": self.spec(self.net, ema=0.9, clip=1.0),
        }
        return (
            Stage(
                "gan", self.config.epochs, self.config.batch_size, optimizers, self.step,
                metric="response", on_epoch_start=self.renew,
            ),
        )  # fmt: skip

    def renew(self, updater: Updater) -> None:
        self.starts.append(self.fresh.weight.detach().clone())
        reinitialise(self.fresh)
        updater.reset("fresh")

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        fake = self.sample(updater.normal(len(batch), 4), batch.conditions)
        losses = {}
        for name in ("critic", "fresh"):
            critic = getattr(self, name)
            before = [p.detach().clone() for p in self.net.parameters()]
            losses[name] = (critic(fake) - critic(batch.cells)).mean() / 1e3
            updater.update(name, losses[name], retain_graph=True)
            self.calls.append(name)
            moved = any(not torch.equal(a, b) for a, b in zip(before, self.net.parameters(), strict=True))
            self.foreign.append(moved or any(p.grad is not None for p in self.net.parameters()))
        if updater.every(self.config.critic_steps):
            fake = self.sample(updater.normal(len(batch), 4), batch.conditions)
            losses["generator"] = -(self.critic(fake) + self.fresh(fake)).mean() / 1e3
            updater.update("generator", losses["generator"])
            self.calls.append("generator")
            for p in self.net.parameters():
                p.grad = None
        return losses


class TwoStage(Toy):
    """A decoder, then a post-processor on the frozen decoder, after codes of the whole set were computed."""

    def __init__(self, detector, config):
        super().__init__(detector, config)
        self.post = nn.Linear(N_CELLS, N_CELLS)
        self.modes: list[tuple[bool, bool]] = []
        self.after_first: dict[str, Tensor] = {}
        self.codes = torch.zeros(0)

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        return torch.relu(super().sample(noise, conditions) + self.post(noise.new_zeros(len(noise), N_CELLS)))

    def stages(self) -> tuple[Stage, ...]:
        size = self.config.batch_size
        return (
            Stage("decoder", 2, size, {"net": self.spec(self.net)}, self.first, metric="response"),
            Stage(
                "post", self.config.epochs, size, {"post": self.spec(self.post)}, self.second,
                metric="response", frozen=(self.net,), on_start=self.compute,
            ),
        )  # fmt: skip

    def first(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        loss = ((self.sample(updater.normal(len(batch), 4), batch.conditions) - batch.cells) ** 2).mean()
        updater.update("net", loss)
        return {"loss": loss}

    def compute(self, data: TrainingData, updater: Updater) -> None:
        self.after_first = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self.codes = torch.zeros(len(data))
        for batch in data.batches(7):
            self.codes[batch.indices] = batch.cells.sum(1)

    def second(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        self.modes.append((self.net.training, any(p.requires_grad for p in self.net.parameters())))
        assert torch.equal(self.codes[batch.indices], batch.cells.sum(1))
        loss = ((self.sample(updater.normal(len(batch), 4), batch.conditions) - batch.cells) ** 2).mean()
        updater.update("post", loss)
        return {"loss": loss}


class MeanShower(Toy):
    """No gradients at all: the mean shower, found by fitting; its buffer's size is decided by the data."""

    def __init__(self, detector, config):
        super().__init__(detector, config)
        self.register_buffer("seen", torch.zeros(0, N_CELLS))

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        return self.seen.mean(0).expand(len(noise), -1) * (1.0 + 0.0 * noise[:, :1])

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fit", fit=self.fit),)

    def fit(self, data: TrainingData, generator: torch.Generator) -> None:
        self.seen = torch.cat([batch.cells for batch in data.batches(16)])


class Steady(Toy):
    """No random numbers and no dropout: the same on any number of devices but for rounding."""

    def stages(self) -> tuple[Stage, ...]:
        net = {"net": self.spec(self.net, ema=0.9, clip=1.0)}
        return (Stage("net", self.config.epochs, self.config.batch_size, net, self.step, metric="response"),)

    def train(self, mode: bool = True) -> Steady:
        super().train(mode)
        self.net[2].eval()
        return self

    def step(self, batch: Batch, updater: Updater) -> dict[str, Tensor]:
        noise = batch.indices[:, None] % torch.arange(2, 6, device=batch.indices.device) * 1.0
        loss = ((self.sample(noise, batch.conditions) - batch.cells) ** 2).mean()
        updater.update("net", loss)
        return {"loss": loss}


class Halting(Adversarial):
    """Stops every process once, before its third epoch, after the checkpoint of the second."""

    halted: ClassVar[bool] = False

    def renew(self, updater: Updater) -> None:
        if updater.epoch == 2 and not Halting.halted:
            Halting.halted = True
            raise RuntimeError("halted")
        super().renew(updater)


TOYS = {
    "toy-steady": Steady,
    "toy-halting": Halting,
    "toy-adversarial": Adversarial,
    "toy-two-stage": TwoStage,
    "toy-mean": MeanShower,
}


def register() -> None:
    """Add the toys to the registry."""
    for name, kind in TOYS.items():
        MODELS.register(name, kind)


def train_on_devices(data: Path, folder: Path) -> None:
    """What the tests of several devices need, in one start of processes."""
    import torch.distributed as dist

    from caloforge.train import train

    register()
    settings = {"model": {"batch_size": 17}, "train": {"checkpoint_epochs": 1}}
    for name in ("toy-steady", "toy-adversarial", "toy-two-stage", "toy-mean"):
        train(name, data, folder / name, config=settings, device="cpu", devices=2)
    streamed = {"model": settings["model"], "train": {"data": {"memory": "1kB"}}}
    train("toy-steady", data, folder / "streamed", config=streamed, device="cpu")
    try:
        train("toy-halting", data, folder / "toy-halting", config=settings, device="cpu")
    except RuntimeError:
        (folder / f"halted-{dist.get_rank()}").touch()
    train("toy-halting", data, folder / "toy-halting", config=settings, device="cpu", resume=True)


def fail_on_second_device(how: str) -> None:
    """Fail in the second of several processes, while the first waits for it."""
    import torch.distributed as dist

    if dist.get_rank() == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ConfigError("the second device is wrong")
    dist.barrier()
