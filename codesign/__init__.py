"""From sparse spiking neural network training to verified FPGA hardware: the functions and classes of the whole path.

They take and give objects; the command line is a skin over the same ones. A name is imported when it is first used, so
that what needs no torch imports none. In order:

    load_config, parse_config    a configuration (Config), from a TOML file or from tables
    load_dataset, encode         samples (Dataset), and as the network is fed with them (Stimulus)
    train_network                -> TrainResult; or in an own loop: SpikingNetwork, PQRewirer
    freeze_network, freeze_model -> FrozenNetwork, the integers that everything after it takes
    FloatNetwork, run_float      any network before it has integers, and what it does
    quantise_network             -> FrozenNetwork, by rounding alone
    import_network               a NIR file or lava-dl's; export_network writes NIR (ImportFacts: what files do not say;
                                 FineTuning: train it further, pruned or not)
    run_golden, predict          what it does, by the arithmetic of the hardware
    hardware_config              what the machine is to be
    map_hardware, plan_machine   neurons on lanes; memories, widths, clocks
    estimate_machine             cycles, memory and area without synthesis
    tune                         machines of a network, ranked for a device and limits; the best placed and routed
    generate_bundle              Verilog with what belongs to it, a folder
    verify_bundle                the delivered Verilog against the network, every spike and membrane
    synthesise_bundle            area and clock
    build_bitstream              a board's bitstream
    run_pipeline                 all of it in a run directory, as `codesign run`
    explore_designs              a space of networks and machines, as `codesign explore`

Errors are of :class:`CodesignError`; each class has the exit code of the command line.
"""

from typing import TYPE_CHECKING

from codesign.basics.lazy import lazy
from codesign.basics.version import VERSION as __version__

if TYPE_CHECKING:
    from boards.build import build as build_bitstream
    from boards.synth import synth_bundle as synthesise_bundle
    from codesign.basics.errors import (
        AlteredError,
        CapacityError,
        CodesignError,
        CodesignWarning,
        InputError,
        MismatchError,
        OutputError,
        ToolError,
        UnsupportedError,
    )
    from codesign.config import Config, hardware_config, load_config, parse_config
    from codesign.contract.floating import FloatNetwork
    from codesign.contract.floating import run as run_float
    from codesign.contract.golden import Trace
    from codesign.contract.golden import run as run_golden
    from codesign.contract.network import FrozenNetwork, InputCoding, Leak
    from codesign.contract.sidecar import Sidecar
    from codesign.contract.stimulus import Stimulus
    from codesign.cost.estimate import estimate as estimate_machine
    from codesign.cost.mapping import map_hardware
    from codesign.data import Dataset, load_dataset
    from codesign.data.encoders import encode
    from codesign.explore import explore as explore_designs
    from codesign.interchange.facts import Facts as ImportFacts
    from codesign.interchange.importing import import_file as import_network
    from codesign.interchange.own import write_nir as export_network
    from codesign.machine.mapping import HardwareMap
    from codesign.machine.plan import MachinePlan, plan_machine
    from codesign.pipeline.predict import Prediction, predict
    from codesign.pipeline.runs import run_pipeline
    from codesign.pipeline.steps import freeze_network, train_network
    from codesign.pipeline.tuning import tune
    from codesign.quantise.freeze import FreezeResult, FrozenModel, freeze_model
    from codesign.quantise.integers import quantise as quantise_network
    from codesign.records.rundir import RunDirectory
    from codesign.train import TrainResult
    from codesign.train.floating import FineTuning
    from codesign.train.model import SpikingNetwork
    from codesign.train.rewiring import PQRewirer
    from rtl_templates.bundle import write_bundle as generate_bundle
    from sim.verify import Verification, verify_bundle
else:
    # As texts with a colon: a stage's sources are found from module names (codesign.pipeline.sources), and every module
    # depends on this one, which must not lead to all the others.
    _PLACES = {
        "AlteredError": "codesign.basics.errors:AlteredError",
        "CapacityError": "codesign.basics.errors:CapacityError",
        "CodesignError": "codesign.basics.errors:CodesignError",
        "CodesignWarning": "codesign.basics.errors:CodesignWarning",
        "Config": "codesign.config:Config",
        "Dataset": "codesign.data:Dataset",
        "FineTuning": "codesign.train.floating:FineTuning",
        "FloatNetwork": "codesign.contract.floating:FloatNetwork",
        "FreezeResult": "codesign.quantise.freeze:FreezeResult",
        "FrozenModel": "codesign.quantise.freeze:FrozenModel",
        "FrozenNetwork": "codesign.contract.network:FrozenNetwork",
        "HardwareMap": "codesign.machine.mapping:HardwareMap",
        "ImportFacts": "codesign.interchange.facts:Facts",
        "InputCoding": "codesign.contract.network:InputCoding",
        "InputError": "codesign.basics.errors:InputError",
        "Leak": "codesign.contract.network:Leak",
        "MachinePlan": "codesign.machine.plan:MachinePlan",
        "MismatchError": "codesign.basics.errors:MismatchError",
        "OutputError": "codesign.basics.errors:OutputError",
        "PQRewirer": "codesign.train.rewiring:PQRewirer",
        "Prediction": "codesign.pipeline.predict:Prediction",
        "RunDirectory": "codesign.records.rundir:RunDirectory",
        "Sidecar": "codesign.contract.sidecar:Sidecar",
        "SpikingNetwork": "codesign.train.model:SpikingNetwork",
        "Stimulus": "codesign.contract.stimulus:Stimulus",
        "ToolError": "codesign.basics.errors:ToolError",
        "Trace": "codesign.contract.golden:Trace",
        "TrainResult": "codesign.train:TrainResult",
        "UnsupportedError": "codesign.basics.errors:UnsupportedError",
        "Verification": "sim.verify:Verification",
        "build_bitstream": "boards.build:build",
        "encode": "codesign.data.encoders:encode",
        "estimate_machine": "codesign.cost.estimate:estimate",
        "explore_designs": "codesign.explore:explore",
        "export_network": "codesign.interchange.own:write_nir",
        "freeze_model": "codesign.quantise.freeze:freeze_model",
        "freeze_network": "codesign.pipeline.steps:freeze_network",
        "generate_bundle": "rtl_templates.bundle:write_bundle",
        "hardware_config": "codesign.config:hardware_config",
        "import_network": "codesign.interchange.importing:import_file",
        "load_config": "codesign.config:load_config",
        "load_dataset": "codesign.data:load_dataset",
        "map_hardware": "codesign.cost.mapping:map_hardware",
        "parse_config": "codesign.config:parse_config",
        "plan_machine": "codesign.machine.plan:plan_machine",
        "predict": "codesign.pipeline.predict:predict",
        "quantise_network": "codesign.quantise.integers:quantise",
        "run_float": "codesign.contract.floating:run",
        "run_golden": "codesign.contract.golden:run",
        "run_pipeline": "codesign.pipeline.runs:run_pipeline",
        "synthesise_bundle": "boards.synth:synth_bundle",
        "train_network": "codesign.pipeline.steps:train_network",
        "tune": "codesign.pipeline.tuning:tune",
        "verify_bundle": "sim.verify:verify_bundle",
    }
    __getattr__, __dir__ = lazy(__name__, _PLACES)

__all__ = [
    "AlteredError",
    "CapacityError",
    "CodesignError",
    "CodesignWarning",
    "Config",
    "Dataset",
    "FineTuning",
    "FloatNetwork",
    "FreezeResult",
    "FrozenModel",
    "FrozenNetwork",
    "HardwareMap",
    "ImportFacts",
    "InputCoding",
    "InputError",
    "Leak",
    "MachinePlan",
    "MismatchError",
    "OutputError",
    "PQRewirer",
    "Prediction",
    "RunDirectory",
    "Sidecar",
    "SpikingNetwork",
    "Stimulus",
    "ToolError",
    "Trace",
    "TrainResult",
    "UnsupportedError",
    "Verification",
    "__version__",
    "build_bitstream",
    "encode",
    "estimate_machine",
    "explore_designs",
    "export_network",
    "freeze_model",
    "freeze_network",
    "generate_bundle",
    "hardware_config",
    "import_network",
    "load_config",
    "load_dataset",
    "map_hardware",
    "parse_config",
    "plan_machine",
    "predict",
    "quantise_network",
    "run_float",
    "run_golden",
    "run_pipeline",
    "synthesise_bundle",
    "train_network",
    "tune",
    "verify_bundle",
]
