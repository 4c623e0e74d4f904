"""python -m services.evaluator_iot: run the evaluator."""

from services.evaluator_iot.evaluator import build
from services.shared.settings import EvaluatorSettings
from services.shared.worker import run_worker

run_worker(EvaluatorSettings, build)
