"""All runs of Geant4 that the tests look at, in one process; writes them to the file that it is given."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from stub_model import StubGenerator

from caloforge.geometry import load_detector
from caloforge.simulate.geant4 import export_data, find_data
from caloforge.units import EnergySpec

APPLICATION = Path(__file__).parents[2] / "examples" / "geant4_application"
sys.path.insert(0, str(APPLICATION))


def main() -> None:
    export_data(find_data())
    from events import Gun, columns_of
    from replacement import ShowerReplacement
    from world import Application

    detector = load_detector(APPLICATION / "plane.toml")
    application = Application(detector)
    straight: dict[str, Any] = {"distance": (1.0, 1.0), "incidence": (0.0, 0.0), "spread": 0.0}
    guns = {
        "photon": (Gun("gamma", EnergySpec.parse("10GeV"), **straight), 24),
        "leaning": (Gun("gamma", EnergySpec.parse("20-30GeV"), incidence=(0.0, 40.0)), 6),
        "soft": (Gun("gamma", EnergySpec.parse("2GeV"), **straight), 3),
        "pion": (Gun("pi0", EnergySpec.parse("30-40GeV")), 6),
        "muon": (Gun("mu-", EnergySpec.parse("30GeV"), **straight), 2),
    }
    out: dict[str, Any] = {}
    for name, (gun, n) in guns.items():
        for mode in ("full", "fast"):
            if (name, mode) == ("leaning", "full"):
                continue
            generator = StubGenerator()
            replacement = ShowerReplacement(generator, detector) if mode == "fast" else None  # type: ignore[arg-type]
            generator.model.asked.clear()
            events = [event for block in application.run(gun, n, 3, replacement) for event in block]
            columns = columns_of(events)
            columns["cells"] = np.stack([event.cells for event in events])
            columns["calls"] = np.array([len(one) for one in generator.model.asked])
            columns["asked"] = np.concatenate([np.zeros((0, 2), np.float32), *generator.model.asked])
            out |= {f"{name}/{mode}/{key}": value for key, value in columns.items()}
    np.savez_compressed(sys.argv[1], **out)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
