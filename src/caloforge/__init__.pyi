from types import ModuleType
from typing import Any

from caloforge import formats as formats
from caloforge.benchmark import benchmark as benchmark
from caloforge.formats import convert as convert
from caloforge.generate.export import export as export
from caloforge.geometry import get_detector as get_detector
from caloforge.showers import Showers as Showers
from caloforge.showers import open_showers as open_showers
from caloforge.showers import read_showers as read_showers
from caloforge.showers import write_showers as write_showers
from caloforge.showers.ranges import info as info
from caloforge.showers.ranges import merge as merge
from caloforge.showers.ranges import split as split
from caloforge.showers.views import project_showers
from caloforge.simulate import simulate as simulate
from caloforge.studies.run import run_study
from caloforge.train import train as train
from caloforge.tune import tune as tune
from caloforge.validate.driver import validate as validate
from caloforge.validate.observables.streaming import observe as observe
from caloforge.validate.report.event import view as view
from caloforge.zoo import load as load

__version__: str
project = project_showers
study = run_study

class VerbPackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
