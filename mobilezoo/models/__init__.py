"""The zoo: one file per family, one YAML per variant."""

from mobilezoo.models.fuse import fuse
from mobilezoo.models.registry import create_model, list_models, load_model_config, recorded_config

__all__ = ["create_model", "fuse", "list_models", "load_model_config", "recorded_config"]
