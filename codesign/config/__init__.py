"""One TOML file describes a run. Every key is checked; an unknown one names its nearest neighbour."""

from codesign.config.base import AUTO, Count, Family, Section, Target
from codesign.config.data import DataConfig
from codesign.config.hardware import (
    BudgetConfig,
    CapacityConfig,
    HardwareConfig,
    SynthConfig,
    VerifyConfig,
    hardware_config,
    lanes_per_layer,
)
from codesign.config.network import (
    MAX_TRAINED_SHIFT,
    ConvLayer,
    DenseLayer,
    ElsewhereConfig,
    NetworkConfig,
    PoolLayer,
    ResidualLayer,
)
from codesign.config.sections import parse_section
from codesign.config.training import MAX_THREADS, FreezeConfig, RewiringConfig, TrainConfig
from codesign.config.whole import MAX_CONFIG_BYTES, PATHS, Config, apply_override, load_config, parse_config, root_paths

__all__ = [
    "AUTO",
    "MAX_CONFIG_BYTES",
    "MAX_THREADS",
    "MAX_TRAINED_SHIFT",
    "PATHS",
    "BudgetConfig",
    "CapacityConfig",
    "Config",
    "ConvLayer",
    "Count",
    "DataConfig",
    "DenseLayer",
    "ElsewhereConfig",
    "Family",
    "FreezeConfig",
    "HardwareConfig",
    "NetworkConfig",
    "PoolLayer",
    "ResidualLayer",
    "RewiringConfig",
    "Section",
    "SynthConfig",
    "Target",
    "TrainConfig",
    "VerifyConfig",
    "apply_override",
    "hardware_config",
    "lanes_per_layer",
    "load_config",
    "parse_config",
    "parse_section",
    "root_paths",
]
