"""The typed config: sections, defaults, TOML files, `-s key=value` overrides, checks across sections."""

from coverslip.config.loading import dump_toml, load_config, merge_layers, parse_override, parse_overrides, read_toml, schema, with_values
from coverslip.config.sections import (
    AugmentConfig,
    BundleConfig,
    CacheConfig,
    DataConfig,
    DecisionConfig,
    IntervalsConfig,
    MemoryConfig,
    ModelConfig,
    PixelsConfig,
    RunConfig,
    SplitConfig,
    TrainingConfig,
)

__all__ = [
    "AugmentConfig",
    "BundleConfig",
    "CacheConfig",
    "DataConfig",
    "DecisionConfig",
    "IntervalsConfig",
    "MemoryConfig",
    "ModelConfig",
    "PixelsConfig",
    "RunConfig",
    "SplitConfig",
    "TrainingConfig",
    "dump_toml",
    "load_config",
    "merge_layers",
    "parse_override",
    "parse_overrides",
    "read_toml",
    "schema",
    "with_values",
]
