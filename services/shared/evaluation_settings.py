"""Settings of the evaluator's passes."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class EvaluationSettings(BaseSettings):
    """Limits of one pass of evaluator_iot (docs/architecture.md)."""

    model_config = SettingsConfigDict(env_prefix="PULSE_", frozen=True, env_ignore_empty=True, extra="ignore")

    evaluator_batch_readings: Annotated[int, Field(ge=1, le=100_000)] = 5000
    """Most readings that one pass takes."""
    evaluator_batch_pairs: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Most pairs of a reading and a rule that one pass evaluates; one reading is always evaluated by all its rules."""
    evaluator_slow_pass_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Duration of a pass after which the next one gets half of both limits; a failed pass leaves a quarter."""
